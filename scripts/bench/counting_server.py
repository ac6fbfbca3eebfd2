"""A server between a tool and the API: it counts the calls, and lets `answer(path, headers, body)` give status, content
type and body. `passing_on` is the answer of the rehearsal cloud."""

import http.client
import os
import re
import socketserver
import threading
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler

KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null"}


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer):
        self.calls, self.answer, self.lock = Counter(), answer, threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def counted(self):
        """The calls since it was asked last, by their action."""
        with self.lock:
            calls, self.calls = self.calls, Counter()
        return calls


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        target = self.headers.get("x-amz-target")
        action = target.split(".")[1] if target else re.search(rb"(?:^|&)Action=(\w+)", body)[1].decode()
        with self.server.lock:
            self.server.calls[action] += 1
        status, kind, answer = self.server.answer(self.path, self.headers, body)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def passing_on(endpoint):
    """Signs each call anew with the key that `local-cloud up` exported, since the name of this server is signed, too."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    to = urllib.parse.urlparse(endpoint)
    key = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])

    def answer(path, headers, body):
        connection = http.client.HTTPConnection(to.hostname, to.port, timeout=60)
        service = re.search(r"Credential=[^,]*/([^/]+)/aws4_request", headers["authorization"])[1]
        kept = {name: value for name, value in headers.items() if name.lower() in ("content-type", "x-amz-target")}
        request = AWSRequest("POST", endpoint + path, kept, body)
        SigV4Auth(key, service, "us-east-1").add_auth(request)
        connection.request("POST", path, body, dict(request.headers.items()))
        response = connection.getresponse()
        return response.status, response.headers.get("content-type", "text/xml"), response.read()

    return answer
