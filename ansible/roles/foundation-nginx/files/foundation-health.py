#!/usr/bin/python3
"""Answers GET /health with a JSON document: is every service on this host up?

Each service is asked in its own language, as its clients do: OPTIONS for SIP, a start-up message for PostgreSQL, the
protocol header for AMQP, a request for HTTP. Nobody is asked while the last document is young enough, so a busy caller
costs the services nothing. Status 200 means all up, 503 that at least one is not.
"""

import datetime
import http.client
import http.server
import json
import os
import socket
import struct
import sys
import threading
import time
import uuid


class Down(Exception):
    """The service answered, and the answer is no."""


def ask_sip(service, timeout):
    """RFC 3261 section 11: OPTIONS to the server itself, without a user."""
    tag = uuid.uuid4().hex
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(timeout)
        # Asterisk knows the probe by the port that it sends from.
        if "source_port" in service:
            link.bind(("127.0.0.1", service["source_port"]))
        link.connect((service["host"], service["port"]))
        here = "%s:%d" % link.getsockname()
        there = "%s:%d" % (service["host"], service["port"])
        lines = (
            f"OPTIONS sip:{there} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{tag};rport",
            "Max-Forwards: 1",
            f"From: <sip:health@{here}>;tag={tag[:8]}",
            f"To: <sip:{there}>",
            f"Call-ID: {tag}",
            "CSeq: 1 OPTIONS",
            "Content-Length: 0",
        )
        link.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = link.recv(4096).split(b"\r\n", 1)[0].decode("ascii", "replace")
    if not status.startswith("SIP/2.0 200 "):
        raise Down(f"OPTIONS answered {status!r}")
    return "answers OPTIONS"


def exactly(link, count):
    """Reads count bytes or says that the connection ended before."""
    data = b""
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            raise Down("connection closed before the answer")
        data += part
    return data


def ask_postgresql(service, timeout):
    """What pg_isready does: start a session as nobody in particular and see whether the server would go on."""
    words = b"user\0health\0database\0postgres\0\0"
    with socket.create_connection((service["host"], service["port"]), timeout) as link:
        link.settimeout(timeout)
        link.sendall(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
        kind, size = struct.unpack("!ci", exactly(link, 5))
        if kind not in (b"R", b"E") or not 4 <= size <= 65536:
            raise Down(f"not PostgreSQL: answer {kind!r}")
        # Read to the end, or the server logs a reset connection at every probe.
        fields = exactly(link, size - 4)
    if kind == b"R":
        return "takes connections"
    for state, meaning in ((b"57P03", "starting up or shutting down"), (b"53300", "too many connections")):
        if b"\0C" + state + b"\0" in fields:
            raise Down(meaning)
    # Any other refusal, such as an unknown role, comes from a server that works.
    return "takes connections"


def ask_amqp(service, timeout):
    """AMQP 0-9-1 section 2.2.4: the header is answered with Connection.Start, class 10 method 10."""
    with socket.create_connection((service["host"], service["port"]), timeout) as link:
        link.settimeout(timeout)
        link.sendall(b"AMQP\0\0\x09\x01")
        frame, channel, _, class_id, method_id = struct.unpack("!BHIHH", exactly(link, 11))
    if (frame, channel, class_id, method_id) != (1, 0, 10, 10):
        raise Down("not AMQP 0-9-1")
    return "answers with Connection.Start"


def ask_http(service, timeout):
    link = http.client.HTTPConnection(service["host"], service["port"], timeout=timeout)
    try:
        link.request("GET", service.get("path", "/"))
        status = link.getresponse().status
    finally:
        link.close()
    if status != 200:
        raise Down(f"GET answered {status}")
    return "answers GET"


PROBES = {"sip": ask_sip, "postgresql": ask_postgresql, "amqp": ask_amqp, "http": ask_http}


def ask(service, timeout):
    """One entry of the document."""
    start = time.monotonic()
    try:
        status, detail = "up", PROBES[service["probe"]](service, timeout)
    except TimeoutError:
        status, detail = "down", f"no answer within {timeout:g} s"
    except (Down, OSError, http.client.HTTPException) as error:
        status, detail = "down", getattr(error, "strerror", None) or str(error) or type(error).__name__
    return {"status": status, "detail": detail, "elapsed_ms": round((time.monotonic() - start) * 1000)}


class Health:
    """The last document and when it was made."""

    def __init__(self, settings):
        self.settings = settings
        self.lock = threading.Lock()
        self.document, self.made = None, 0.0

    def refresh(self):
        services, threads = {}, []
        checked_at = datetime.datetime.now(datetime.timezone.utc)
        for service in self.settings["services"]:
            services[service["name"]] = None  # keeps the configured order
            threads.append(threading.Thread(target=self.ask_into, args=(services, service)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        up = all(entry is not None and entry["status"] == "up" for entry in services.values())
        self.document = {
            "version": 1,
            "status": "up" if up else "down",
            "checked_at": checked_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "services": services,
        }

    def ask_into(self, services, service):
        services[service["name"]] = ask(service, self.settings["timeout_seconds"])

    def current(self):
        """The document with its age; callers that come while services are asked wait for that answer."""
        with self.lock:
            if self.document is None or time.monotonic() - self.made > self.settings["cache_seconds"]:
                started = time.monotonic()
                self.refresh()
                self.made = started
            return {**self.document, "age_ms": round((time.monotonic() - self.made) * 1000)}


class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "foundation-health", ""
    timeout = 5

    def do_GET(self):
        if self.path != "/health":
            self.send_error(404)
            return
        document = self.server.health.current()
        body = (json.dumps(document, indent=2) + "\n").encode()
        self.send_response(200 if document["status"] == "up" else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        """nginx has the access log."""


def tell_service_manager(state):
    """sd_notify(3), so that a start has ended only when callers are answered."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    listen = settings["listen"]
    with http.server.ThreadingHTTPServer((listen["host"], listen["port"]), Handler) as server:
        server.health = Health(settings)
        tell_service_manager("READY=1")
        server.serve_forever()


if __name__ == "__main__":
    main()
