"""Starts moto for the rehearsal cloud.

Its records are put right by `moto_corrections`. Four more things differ from plain `moto_server`: public addresses come
from 198.51.100.0/24 (TEST-NET-2, RFC 5737), which the rehearsal cloud routes to its hosts, instead of from Amazon's own;
its machine images are those of a file, read again when a line `amis` comes on its stdin, and a line `forget ID` takes an
instance out of its records; it answers only requests that carry the secret, which is the first line on its stdin; and it
ends with the process that started it, which holds the other end of that.
"""

import hmac
import itertools
import json
import os
import random
import sys
import threading

import moto_corrections  # importing it puts moto right
from moto.core.parse import default_timestamp_parser as parse_timestamp
from moto.ec2.models import ec2_backends, elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.amis import Ami, AmiBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication


def address_pool():
    numbers = list(range(10, 251))
    random.shuffle(numbers)
    return itertools.cycle(f"198.51.100.{number}" for number in numbers)


def addresses_in_use():
    used = set()
    for regions in ec2_backends.values():
        for backend in list(regions.values()):
            used.update(address.public_ip for address in backend.addresses)
            used.update(eni.public_ip for eni in backend.enis.values())
    return used | addresses_routed()


def addresses_routed():
    """Those that lead to hosts of any rehearsal cloud on this machine; the table holds them in host byte order."""
    routed = set()
    with open("/proc/net/route", encoding="ascii") as table:
        for line in list(table)[1:]:
            destination = bytes.fromhex(line.split()[1])
            if sys.byteorder == "little":
                destination = destination[::-1]
            routed.add(".".join(str(byte) for byte in destination))
    return routed


POOL = address_pool()
LOCK = threading.Lock()


def next_address():
    with LOCK:
        used = addresses_in_use()
        for _ in range(241):
            address = next(POOL)
            if address not in used:
                return address
    raise RuntimeError("all public addresses of the rehearsal cloud are in use")


def load_images(backend):
    """Makes a backend's images those of the file: Debian's are nobody's alias, and a person's own come and go."""
    with open(os.environ["MOTO_AMIS_PATH"], encoding="utf-8") as file:
        images = {image["ami_id"]: image for image in json.load(file)}
    for ami_id, image in images.items():
        known = backend.amis.get(ami_id)
        if known is None or known.name != image["name"]:
            created = parse_timestamp(image["creation_date"])
            arguments = {**image, "creation_date": created, "region_name": backend.region_name}
            backend.amis[ami_id] = Ami(backend, **arguments)
    for ami_id in set(backend.amis) - set(images):
        del backend.amis[ami_id]


def answer_only(secret):
    """Turns everybody else away before anything is looked at: its own API could empty it, and it checks no signature."""
    answer = DomainDispatcherApplication.__call__

    def guarded(self, environ, start_response):
        if hmac.compare_digest(environ.pop("HTTP_X_LOCAL_CLOUD_SECRET", "").encode(), secret):
            return answer(self, environ, start_response)
        start_response("403 Forbidden", [("content-type", "text/plain")])
        return [b"this answers the rehearsal cloud alone\n"]

    DomainDispatcherApplication.__call__ = guarded


def follow_parent():
    """Ends with the process that started this one; takes over the images when it says so."""
    for line in sys.stdin.buffer:
        if line == b"amis\n":
            for regions in list(ec2_backends.values()):
                for backend in list(regions.values()):
                    load_images(backend)
        elif line.startswith(b"forget "):
            for regions in list(ec2_backends.values()):
                for backend in list(regions.values()):
                    moto_corrections.forget_instance(backend, line.split()[1].decode())
    os._exit(0)


if __name__ == "__main__":
    elastic_ip_addresses.random_ip = next_address
    elastic_network_interfaces.random_public_ip = next_address
    AmiBackend._load_amis = load_images
    answer_only(sys.stdin.buffer.readline().strip())
    threading.Thread(target=follow_parent, daemon=True).start()
    from moto.server import main

    main(sys.argv[1:])
