"""Starts moto for the rehearsal cloud.

Its records are put right by `moto_corrections`. Two more things differ from plain `moto_server`: public addresses come from 198.51.100.0/24 (TEST-NET-2, RFC 5737), which
the rehearsal cloud routes to its hosts, instead of from Amazon's own; and it ends with the process that started it,
which holds the other end of its stdin.
"""

import itertools
import os
import random
import sys
import threading

import moto_corrections  # noqa: F401 (importing it puts moto right)
from moto.ec2.models import elastic_ip_addresses, elastic_network_interfaces


def address_pool():
    numbers = list(range(10, 251))
    random.shuffle(numbers)
    return itertools.cycle(f"198.51.100.{number}" for number in numbers)


def addresses_in_use():
    from moto.ec2.models import ec2_backends

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


def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    elastic_ip_addresses.random_ip = next_address
    elastic_network_interfaces.random_public_ip = next_address
    threading.Thread(target=end_with_parent, daemon=True).start()
    from moto.server import main

    main(sys.argv[1:])
