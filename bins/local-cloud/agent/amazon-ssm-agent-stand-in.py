#!/usr/bin/python3 -IS
"""Stand-in for amazon-ssm-agent on a host of the rehearsal cloud. It is not Amazon's agent.

It takes the region and the instance role's credentials from instance metadata, registers at `ssm.<region>` over HTTPS,
asks `ssmmessages.<region>` for commands, runs each as the agent does, and says how it ended:

- a command is one or more steps, each a script: one file, mode 0700 in a private folder, run by `sh -c FILE` as root in
  a process group of its own;
- a timeout or a cancellation kills the group with SIGKILL; exit status 137 means timed out or cancelled;
- exit status 194 reboots the host and runs the step once more afterwards; 168 and 169 end the document;
- the first 24,000 bytes of standard output and 8,000 of standard error are kept, the rest is counted;
- the whole output goes to CloudWatch Logs once a second while a step runs, and to S3 after it ended, where that is
  asked for. What goes wrong there is only said here, as with Amazon's.

Each command has a worker process of its own that outlives a restart of this agent, as with Amazon's. A command that is
interrupted by a reboot that it did not ask for is never reported; it expires.

Requests are signed with the role's credentials (Signature Version 4), so a host without an instance profile never
registers, and one whose role lacks the rights is refused.
"""

import argparse
import codecs
import errno
import fcntl
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time

# Of the form that the service asks for, and of no release of Amazon's.
VERSION = "0.0.1.0"
WORKERS = 5
STDOUT_KEPT = 24_000
STDERR_KEPT = 8_000
# The agent takes anything outside of these bounds for an hour.
TIMEOUT_LEAST, TIMEOUT_MOST, TIMEOUT_ELSE = 5, 172_800, 3_600
EXIT_REBOOT = 194
EXIT_STOPPED = 137
# "Step exited with code …": the document ends, with success or as failed.
EXIT_DONE, EXIT_OVER = 168, 169
# How often a worker looks for a cancellation.
TICK = 0.2
# After the group was killed, output that others still hold open is waited for so long.
DRAIN = 1.0
# The service answers a question for work within seconds.
PATIENCE = 30
# Instance metadata is next door.
METADATA_PATIENCE = 5
# How often output goes to CloudWatch Logs, and the size of one event (limits of PutLogEvents).
PUSH_EVERY = 1.0
EVENT_BYTES = 200_000
EVENTS_PER_CALL = 4


def log(text):
    print(text, flush=True)


def milliseconds():
    return time.time_ns() // 1_000_000


# Where files go when the disk is full: in memory, until the host goes down.
SPARE = "/run/amazon-ssm-agent-stand-in"
FULL = (errno.ENOSPC, errno.EDQUOT)


def spare(path):
    return SPARE + os.path.abspath(path)


def write_file(path, text, mode):
    """Whole or not at all; in memory where the disk is full. Says where it is."""
    try:
        write_at(path, text, mode)
    except OSError as error:
        if error.errno not in FULL:
            raise
        remove(path + ".new")
        os.makedirs(os.path.dirname(spare(path)), mode=0o700, exist_ok=True)
        write_at(spare(path), text, mode)
        return spare(path)
    # What was written when there was no room is older.
    remove(spare(path))
    return path


def remove(path):
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def exists(path):
    return os.path.exists(path) or os.path.exists(spare(path))


def remove_folder(folder):
    """With what of it is in memory."""
    shutil.rmtree(spare(folder), ignore_errors=True)
    shutil.rmtree(folder)


def write_at(path, text, mode):
    draft = path + ".new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.rename(draft, path)


def read_json(path):
    """None when there is no such file."""
    for place in (spare(path), path):
        try:
            with open(place, encoding="utf-8", errors="surrogateescape") as file:
                return json.load(file)
        except FileNotFoundError:
            pass
    return None


def boot():
    """Names this run of the host: a container that restarts keeps the kernel's own boot id."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    with open("/proc/1/stat", encoding="utf-8", errors="replace") as file:
        # Field 22; the name in parentheses may hold anything.
        started = file.read().rpartition(")")[2].split()[19]
    return kernel + " " + started


# --- One command: the worker process -------------------------------------------------------------------------------


class Head:
    """The first bytes of a stream, and how many there were."""

    def __init__(self, limit):
        self.limit = limit
        self.kept = bytearray()
        self.size = 0

    def add(self, data):
        self.size += len(data)
        self.kept += data[: self.limit - len(self.kept)]

    def line(self, text):
        """A text to add that starts a line of its own."""
        begun = self.size and not (self.size == len(self.kept) and self.kept.endswith(b"\n"))
        return ("\n" if begun else "").encode() + text.encode()

    def text(self):
        # A character that the limit cuts in two is left out; bytes that are none are marked as such.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(bytes(self.kept), final=self.size == len(self.kept))


class Stream:
    """One output stream of a step: its head for the service, the whole in a file where it has to go elsewhere."""

    def __init__(self, limit, path):
        self.head = Head(limit)
        self.file = open(path, "wb", buffering=0) if path else None

    def add(self, data):
        self.head.add(data)
        if self.file:
            try:
                self.file.write(data)
            except OSError as error:
                # The head is kept in memory; the rest of the copy for S3 and CloudWatch Logs is lost.
                log("the whole output cannot be kept: %s" % error.strerror)
                self.close()
                self.file = None

    def add_line(self, text):
        self.add(self.head.line(text))

    def close(self):
        if self.file:
            self.file.close()


class Step:
    """Runs the script of one step to its end."""

    def __init__(self, folder, job, number):
        self.folder = folder
        self.job = job
        self.step = job["steps"][number]
        self.number = number
        keep = bool(job.get("s3") or job.get("logs"))
        self.paths = {name: self.path(name) for name in ("stdout", "stderr")}
        self.stdout = Stream(STDOUT_KEPT, self.paths["stdout"] if keep else None)
        self.stderr = Stream(STDERR_KEPT, self.paths["stderr"] if keep else None)
        self.stopped_by = None

    def path(self, name):
        return os.path.join(self.folder, "%d.%s" % (self.number, name))

    def result(self):
        started = milliseconds()
        outputs = Outputs(self.job, self.step, self.paths)
        try:
            code = self.execute()
        finally:
            self.stdout.close()
            self.stderr.close()
            outputs.end()
        cancelled = self.stopped_by == "Cancelled"
        if code in (0, EXIT_REBOOT, EXIT_DONE):
            status = "Success"
        elif code == EXIT_STOPPED:
            status = "Cancelled" if cancelled else "TimedOut"
        else:
            status = "Failed"
        result = {
            "name": self.step["name"],
            "status": status,
            "code": code,
            "stdout": self.stdout.head.text(),
            "stdout_bytes": self.stdout.head.size,
            "stderr": self.stderr.head.text(),
            "stderr_bytes": self.stderr.head.size,
            "started": started,
            "finished": milliseconds(),
        }
        return after_the_fact(result, self.step)

    def execute(self):
        environment = dict(os.environ)
        environment["SSM_COMMAND_ID"] = self.job["command_id"]
        environment["AWS_SSM_INSTANCE_ID"] = self.job["instance_id"]
        environment["AWS_SSM_REGION_NAME"] = self.job["region"]
        try:
            script = os.path.join(self.folder, "_script.sh")
            lines = resolve(self.step["commands"], self.job)
            script = write_file(script, "\n".join(lines) + "\n", 0o700)
            child = subprocess.Popen(
                run_by(script, lines),
                cwd=resolve([self.step["working_directory"]], self.job)[0] or None,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self.stderr.add_line("failed to run commands: %s: %s" % (error.filename, error.strerror))
            return 1
        except Unresolved as error:
            self.stderr.add_line(str(error))
            return 1
        self.follow(child)
        status = child.wait()
        if self.stopped_by is not None:
            return EXIT_STOPPED
        if status == 0 or status in (EXIT_STOPPED, EXIT_REBOOT, EXIT_DONE, EXIT_OVER):
            return status
        if status < 0:
            self.stderr.add_line(
                "failed to run commands: signal: %s" % (signal.strsignal(-status) or "").lower()
            )
            return -1
        self.stderr.add_line("failed to run commands: exit status %d" % status)
        return status

    def follow(self, child):
        """Until the child ended and nobody holds its output open, or both were made to end.

        The child is not waited for meanwhile: its number stays its own, so that the right group is killed.
        """
        deadline = time.monotonic() + self.timeout()
        with selectors.DefaultSelector() as selector:
            for pipe, stream in ((child.stdout, self.stdout), (child.stderr, self.stderr)):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, stream)
            while True:
                now = time.monotonic()
                if self.stopped_by is None:
                    if cancelled(self.folder):
                        self.stopped_by = "Cancelled"
                    elif now >= deadline:
                        self.stopped_by = "TimedOut"
                    if self.stopped_by is not None:
                        os.killpg(child.pid, signal.SIGKILL)
                        deadline = now + DRAIN
                elif now >= deadline:
                    return
                if not selector.get_map():
                    if ended(child):
                        return
                    # It closed its output and goes on.
                    time.sleep(TICK / 4)
                    continue
                for key, _ in selector.select(min(TICK, max(deadline - now, 0.01))):
                    data = key.fileobj.read(65_536)
                    if data:
                        key.data.add(data)
                    elif data is not None:
                        selector.unregister(key.fileobj)

    def timeout(self):
        asked = self.step["timeout"]
        if asked.isdigit() and TIMEOUT_LEAST <= int(asked) <= TIMEOUT_MOST:
            return int(asked)
        log("command %s: timeout of `%s` is out of bounds, taking %d s"
            % (self.job["command_id"], asked, TIMEOUT_ELSE))
        return TIMEOUT_ELSE


def run_by(script, lines):
    """As the agent does; what is in memory cannot be executed itself, as `/run` is mounted without that right."""
    if not script.startswith(SPARE):
        return ["sh", "-c", script]
    first = "\n".join(lines).split("\n", 1)[0]
    return (first[2:].split(None, 1) if first.startswith("#!") else ["sh"]) + [script]


def cancelled(folder):
    return exists(os.path.join(folder, "cancel"))


def after_the_fact(result, step):
    """What an exit status or a step's `onFailure` makes of its result."""
    on_failure = step.get("on_failure", "")

    def say(text, *streams):
        for stream in streams:
            result[stream] += text
            result[stream + "_bytes"] += len(text)

    if result["code"] == EXIT_DONE:
        result["stderr"], result["stderr_bytes"] = "", 0
        say("\nStep exited with code 168. Therefore, marking step as succeeded. Further document steps will be skipped.",
            "stdout")
    elif result["code"] == EXIT_OVER:
        say("\nStep exited with code 169. Therefore, marking step as Failed. Further document steps will be skipped.",
            "stdout", "stderr")
    elif result["status"] == "Failed" and on_failure:
        say("\nStep was found to have onFailure property. Further document steps will be skipped.", "stdout", "stderr")
        if on_failure == "successAndExit":
            result["status"], result["code"] = "Success", EXIT_DONE
    return result


def ends_document(step, result):
    """Whether no further step runs but the last one, when that is a `finallyStep`."""
    return (
        result["code"] in (EXIT_DONE, EXIT_OVER)
        or (result["status"] == "Failed" and step.get("on_failure") == "exit")
        or (result["status"] == "Success" and step.get("on_success") == "exit")
    )


def ended(child):
    """Whether a child has ended, without forgetting it."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child.pid, options) is not None


def work(folder):
    """The worker's whole life. It inherited a lock that tells the agent that it lives.

    After every step the results so far are written; the last word is `result.json`.
    """
    job = read_json(os.path.join(folder, "job.json"))
    so_far = os.path.join(folder, "steps.json")
    results = read_json(so_far) or []
    while len(results) < len(job["steps"]):
        number = len(results)
        step = job["steps"][number]
        over = any(ends_document(*pair) for pair in zip(job["steps"], results))
        last = number == len(job["steps"]) - 1
        if step.get("skip"):
            result = unrun(step, "Success", 0, step["skip"])
        elif over and not (step.get("finally") and last):
            why = "Plugin with name %s and id %s skipped due to prior step with an exit condition"
            result = unrun(step, "Success", 0, why % (step["action"], step["name"]))
        elif cancelled(folder):
            result = unrun(step, "Cancelled", EXIT_STOPPED, "")
        else:
            result = Step(folder, job, number).result()
        if result["code"] == EXIT_REBOOT:
            write_file(os.path.join(folder, "again"), "", 0o600)
            return 0
        results.append(result)
        write_file(so_far, json.dumps(results), 0o600)
    write_file(os.path.join(folder, "result.json"), json.dumps(results), 0o600)
    return 0


def unrun(step, status, code, why):
    """How a step ended that no script ran for, or whose end nobody saw."""
    now = milliseconds()
    return {
        "name": step["name"], "status": status, "code": code,
        "stdout": why, "stdout_bytes": len(why), "stderr": "", "stderr_bytes": 0,
        "started": now, "finished": now,
    }


def failed(step, why):
    """A step that failed without having said anything."""
    result = unrun(step, "Failed", -1, "")
    result["stderr"], result["stderr_bytes"] = why, len(why)
    return result


class Unresolved(Exception):
    """A reference to Parameter Store that leads nowhere."""


REFERENCE = re.compile(r"{{\s*ssm:([\w./:-]+)\s*}}")


def resolve(texts, job):
    """Puts the values of Parameter Store in for `{{ssm:name}}`, with the rights of the instance role."""
    names = sorted({name for text in texts for name in REFERENCE.findall(text)})
    if not names:
        return texts
    values = {}
    cloud = Cloud(job["metadata"], job["endpoint"])
    try:
        for start in range(0, len(names), 10):
            asked = names[start : start + 10]
            answer = cloud.json("ssm", "AmazonSSM.GetParameters", {"Names": asked, "WithDecryption": False})
            if answer["InvalidParameters"]:
                raise Unresolved("Parameters %s could not be resolved" % answer["InvalidParameters"])
            for parameter in answer["Parameters"]:
                if parameter["Type"] == "SecureString":
                    raise Unresolved("Parameter %s is a SecureString, which a command cannot use" % parameter["Name"])
                values[parameter["Name"] + parameter.get("Selector", "")] = parameter["Value"]
    except (Unavailable, Refused) as error:
        raise Unresolved("Parameters %s could not be resolved: %s" % (names, error)) from error
    return [REFERENCE.sub(lambda found: values[found.group(1)], text) for text in texts]


# --- Where output goes besides ----------------------------------------------------------------------------------------


class Outputs:
    """Sends the whole output of a step to S3 and CloudWatch Logs, where the command asks for it."""

    def __init__(self, job, step, paths):
        self.job = job
        self.paths = paths
        self.bucket = job.get("s3")
        self.plugin = step["action"].replace(":", "")
        self.step = step["step"].replace(":", "")
        self.over = threading.Event()
        self.pushers = []
        if job.get("logs"):
            name = step["name"].replace(":", "-").replace("*", "-")
            prefix = "%s/%s/%s" % (job["command_id"], job["instance_id"], name)
            for stream, path in paths.items():
                pusher = Pusher(Cloud(job["metadata"], job["endpoint"]), job["logs"], prefix + "/" + stream, path, self.over)
                pusher.start()
                self.pushers.append(pusher)

    def end(self):
        self.over.set()
        if self.bucket:
            for stream, path in self.paths.items():
                self.upload(stream, path)
        for pusher in self.pushers:
            pusher.join()
        if self.bucket or self.pushers:
            for path in self.paths.values():
                os.remove(path)

    def upload(self, stream, path):
        if not os.path.getsize(path):
            return
        parts = [self.bucket["prefix"], self.job["command_id"], self.job["instance_id"], self.plugin, self.step, stream]
        key = "/".join(part.strip("/") for part in parts if part.strip("/"))
        try:
            Cloud(self.job["metadata"], self.job["endpoint"]).put_object(self.bucket["bucket"], key, path)
        except (Unavailable, Refused) as error:
            log("command %s: failed to upload the output to s3: %s" % (self.job["command_id"], error))


class Pusher(threading.Thread):
    """Follows a file of output and pushes what is new of it, whole lines, about once a second."""

    def __init__(self, cloud, group, stream, path, over):
        super().__init__(daemon=True)
        self.cloud, self.group, self.stream, self.path, self.over = cloud, group, stream, path, over
        self.made = False

    def run(self):
        try:
            with open(self.path, "rb") as file:
                self.push_all(file)
        except (Unavailable, Refused) as error:
            log("CloudWatch log group %s, stream %s: %s" % (self.group, self.stream, error))

    def push_all(self, file):
        left = b""
        tries = 0
        while True:
            over = self.over.wait(PUSH_EVERY)
            data = file.read(EVENT_BYTES * EVENTS_PER_CALL - len(left))
            left += data
            # A line that has not ended waits for its end, unless it can have none.
            whole = len(left) if over and not data else left.rfind(b"\n") + 1
            if not whole and len(left) >= EVENT_BYTES:
                whole = len(left)
            if whole:
                try:
                    self.push(left[:whole], over)
                    tries = 0
                except Unavailable:
                    tries += 1
                    if tries >= 10:
                        raise
                    continue
                left = left[whole:]
            if over and not data and not left:
                return

    def push(self, data, over):
        if not self.made:
            self.make()
        now = milliseconds()
        events = []
        while data:
            part, data = data[:EVENT_BYTES], data[EVENT_BYTES:]
            text = part.decode("utf-8", "replace").replace("\r\n", "\n")
            if over and not data and text.endswith("\n"):
                text = text[:-1]
            if text:
                events.append({"timestamp": now, "message": text})
        if events:
            body = {"logGroupName": self.group, "logStreamName": self.stream, "logEvents": events}
            self.cloud.json("logs", "Logs_20140328.PutLogEvents", body)

    def make(self):
        """The group, when it is not there, and the stream."""
        asked = self.cloud.json("logs", "Logs_20140328.DescribeLogGroups", {"logGroupNamePrefix": self.group})
        if not any(group["logGroupName"] == self.group for group in asked["logGroups"]):
            self.once("CreateLogGroup", {"logGroupName": self.group})
        self.once("CreateLogStream", {"logGroupName": self.group, "logStreamName": self.stream})
        self.made = True

    def once(self, operation, body):
        try:
            self.cloud.json("logs", "Logs_20140328." + operation, body)
        except Refused as error:
            if error.code != "ResourceAlreadyExistsException":
                raise


# --- The cloud as an instance sees it -----------------------------------------------------------------------------------


class Unavailable(Exception):
    """The service did not answer, or not now."""


class Refused(Exception):
    """The service answered an error."""

    def __init__(self, status, code, message):
        super().__init__("%s: %s (HTTP %d)" % (code, message, status))
        self.status, self.code = status, code


class Cloud:
    """AWS's APIs with the credentials of the instance role."""

    def __init__(self, metadata, endpoint=None):
        # Slow to load, and not needed by most workers.
        import http.client
        import urllib.parse

        self.http = http.client
        self.parse = urllib.parse
        self.metadata = metadata
        # For tests: everything there instead of at the services' own names.
        self.endpoint = endpoint
        self.region = None
        self.credentials = None
        self.good_until = 0

    def ask(self, connection, method, target, body, headers):
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, self.http.HTTPException) as error:
            raise Unavailable("%s %s%s: %r" % (method, connection.host, target.partition("?")[0], error)) from error
        finally:
            connection.close()

    def look_up(self, path):
        """A text of instance metadata (version 2), None where there is none."""
        parts = self.parse.urlsplit(self.metadata)

        def ask(method, target, headers):
            connection = self.http.HTTPConnection(parts.hostname, parts.port or 80, timeout=METADATA_PATIENCE)
            return self.ask(connection, method, target, None, headers)

        status, _, token = ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        if status == 200:
            status, _, text = ask("GET", "/latest/" + path, {"X-aws-ec2-metadata-token": token.decode("ascii")})
        if status == 404:
            return None
        if status != 200:
            raise Unavailable("instance metadata answers %d" % status)
        return text.decode("utf-8")

    def know(self):
        """Fetches the region once, and the role's credentials when they are new or soon too old."""
        if self.region is None:
            self.region = self.look_up("meta-data/placement/region")
        if time.time() < self.good_until:
            return
        folder = "meta-data/iam/security-credentials/"
        role = (self.look_up(folder) or "").strip()
        text = self.look_up(folder + role) if role else None
        if text is None:
            raise Unavailable("no credentials: this instance has no instance profile with a role")
        self.credentials = json.loads(text)
        # They are renewed well before they expire; asking every minute is cheap.
        self.good_until = time.time() + 60

    def call(self, service, method, path, body, headers, payload_hash=None):
        """The status, headers and body of an answer."""
        self.know()
        host = "%s.%s.amazonaws.com" % (service, self.region)
        target = self.parse.quote(path, safe="/-_.~")
        headers = dict(headers, Host=host)
        self.sign(service, method, target, headers, body, payload_hash)
        if self.endpoint:
            parts = self.parse.urlsplit(self.endpoint)
            connection = self.http.HTTPConnection(parts.hostname, parts.port or 80, timeout=PATIENCE)
        else:
            connection = self.http.HTTPSConnection(host, timeout=PATIENCE)
        return self.ask(connection, method, target, body, headers)

    def sign(self, service, method, target, headers, body, payload_hash):
        """Signature Version 4 ("Signing AWS API requests")."""
        import hashlib
        import hmac

        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers["X-Amz-Date"] = now
        headers["X-Amz-Security-Token"] = self.credentials["Token"]
        if payload_hash is None:
            payload_hash = hashlib.sha256(body or b"").hexdigest()
        headers["X-Amz-Content-Sha256"] = payload_hash
        names = sorted(name.lower() for name in headers)
        by_name = {name.lower(): value.strip() for name, value in headers.items()}
        lines = "".join("%s:%s\n" % (name, by_name[name]) for name in names)
        signed = ";".join(names)
        request = "\n".join([method, target, "", lines, signed, payload_hash])
        scope = "/".join([now[:8], self.region, service, "aws4_request"])
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, digest])
        key = ("AWS4" + self.credentials["SecretAccessKey"]).encode()
        for part in (now[:8], self.region, service, "aws4_request"):
            key = hmac.new(key, part.encode(), "sha256").digest()
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
            self.credentials["AccessKeyId"], scope, signed, signature)

    def agent(self, service, path, body):
        """Asks the stand-in's own side of the service; the status and the text of the answer."""
        data = json.dumps(body).encode()
        status, _, text = self.call(
            service, "POST", "/rehearsal/agent/" + path, data, {"Content-Type": "application/json"})
        text = text.decode("utf-8", "replace")
        # 403: not allowed (yet), or this host's address is not known (yet).
        if status in (400, 403, 429) or status >= 500:
            raise Unavailable("%s: %d %s" % (path, status, text))
        return status, text

    def json(self, service, operation, body):
        """An operation of a service that speaks AWS JSON 1.1."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": operation}
        status, _, text = self.call(service, "POST", "/", data, headers)
        if status >= 500:
            raise Unavailable("%s: %d" % (operation, status))
        try:
            answer = json.loads(text or b"{}")
        except ValueError as error:
            raise Unavailable("%s: no JSON" % operation) from error
        if status != 200:
            code = str(answer.get("__type", "")).rpartition("#")[2]
            raise Refused(status, code, answer.get("message") or answer.get("Message") or "")
        return answer

    def put_object(self, bucket, key, path):
        """A file into S3, with a path-style address."""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = {"Content-Length": str(size), "x-amz-acl": "bucket-owner-full-control"}
            target = "/%s/%s" % (bucket, key)
            status, _, text = self.call("s3", "PUT", target, file, headers, "UNSIGNED-PAYLOAD")
        if status != 200:
            code = re.search("<Code>(.*?)</Code>", text.decode("utf-8", "replace"))
            raise Refused(status, code.group(1) if code else "Error", "s3:/%s" % target)


# --- All commands: the agent ---------------------------------------------------------------------------------------


class Agent:
    """Gets commands, starts workers, reports."""

    def __init__(self, cloud, state, reboot_command):
        self.cloud = cloud
        self.state = state
        self.jobs = os.path.join(state, "jobs")
        self.reboot_command = reboot_command
        self.boot = boot()
        self.instance_id = None
        self.lock = threading.Lock()
        self.held = set()
        self.rebooting = False

    def run(self):
        os.makedirs(self.jobs, mode=0o700, exist_ok=True)
        os.chmod(self.state, 0o700)
        self.patiently(self.register)
        self.recover()
        while not self.rebooting:
            self.patiently(self.poll)
        # The host goes down; systemd ends this.
        signal.pause()

    @staticmethod
    def patiently(call, *arguments):
        pause = 0.5
        while True:
            try:
                return call(*arguments)
            except Unavailable as problem:
                log("%s; again in %.1f s" % (problem, pause))
                time.sleep(pause)
                pause = min(pause * 2, 5)

    def register(self):
        release = {}
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                name, _, value = line.strip().partition("=")
                release[name] = value.strip("\"'")
        about = {
            "agent_version": VERSION,
            "platform_name": release.get("NAME", "Linux"),
            "platform_version": release.get("VERSION_ID", ""),
            "computer_name": os.uname().nodename,
            "workers": WORKERS,
        }
        while True:
            status, text = self.cloud.agent("ssm", "register", about)
            answer = json.loads(text)
            if status != 202:
                break
            # The service has this agent wait.
            time.sleep(answer["wait"])
        if status != 200:
            raise Unavailable("register: %d %s" % (status, text))
        self.instance_id = answer["instance_id"]
        log("stand-in for amazon-ssm-agent, registered as %s" % self.instance_id)

    def poll(self):
        with self.lock:
            held = sorted(self.held)
        status, text = self.cloud.agent("ssmmessages", "poll", {"held": held})
        if status == 409:
            self.register()
            return
        if status != 200:
            raise Unavailable("poll: %d %s" % (status, text))
        answer = json.loads(text)
        for job in answer["start"]:
            if not self.rebooting:
                self.take(job)
        for command_id in answer["stop"]:
            self.stop(command_id)

    def folder(self, command_id):
        if not re.fullmatch("[0-9a-f-]{36}", command_id):
            raise ValueError("not a command id: %r" % command_id)
        return os.path.join(self.jobs, command_id)

    def take(self, job):
        folder = self.folder(job["command_id"])
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in FULL:
                raise
            folder = spare(folder)
            if os.path.isdir(folder):
                return
            os.makedirs(folder, mode=0o700)
        job["instance_id"] = self.instance_id
        job["region"] = self.cloud.region
        job["metadata"] = self.cloud.metadata
        job["endpoint"] = self.cloud.endpoint
        self.start(folder, job)

    def start(self, folder, job):
        """Starts a worker that holds the job's lock for as long as it lives."""
        job["boot"] = self.boot
        write_file(os.path.join(folder, "job.json"), json.dumps(job), 0o600)
        # The lock has no content: a folder that could be made has room for its name.
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            worker = subprocess.Popen(
                [sys.executable, "-IS", os.path.abspath(__file__), "--worker", folder],
                pass_fds=[lock],
            )
        finally:
            os.close(lock)
        log("command %s started" % job["command_id"])
        self.watch(folder, job, worker)

    def stop(self, command_id):
        folder = self.folder(command_id)
        if not os.path.isdir(folder) and os.path.exists(os.path.join(spare(folder), "lock")):
            folder = spare(folder)
        if os.path.isdir(folder):
            write_file(os.path.join(folder, "cancel"), "", 0o600)
            return
        # It never came here, or its end is being reported.
        self.report(command_id, [], True)

    def recover(self):
        """Goes on with what an earlier run of this agent left."""
        begun = {name: self.folder(name) for name in os.listdir(self.jobs)}
        if os.path.isdir(spare(self.jobs)):
            for name in os.listdir(spare(self.jobs)):
                begun.setdefault(name, spare(self.folder(name)))
        for name, folder in sorted(begun.items()):
            job = read_json(os.path.join(folder, "job.json"))
            rebooted = job is not None and job["boot"] != self.boot
            again = os.path.join(folder, "again")
            if job is None:
                # Ended between making the folder and the job; the service offers it again.
                remove_folder(folder)
            elif exists(again):
                if rebooted:
                    remove(spare(again))
                    remove(again)
                    self.start(folder, job)
                elif not self.reboot(name):
                    self.watch(folder, job, None)
            elif rebooted and read_json(os.path.join(folder, "result.json")) is None:
                log("command %s was interrupted by a reboot" % name)
                remove_folder(folder)
            else:
                self.watch(folder, job, None)

    def watch(self, folder, job, worker):
        with self.lock:
            self.held.add(job["command_id"])
        threading.Thread(target=self.see_end, args=(folder, job, worker), daemon=True).start()

    def see_end(self, folder, job, worker):
        """Waits for the worker's end and reports it; of several steps each one when it ended."""
        so_far = os.path.join(folder, "steps.json")
        said = 0
        with open(os.path.join(folder, "lock"), "a", encoding="ascii") as lock:
            while len(job["steps"]) > 1 and not locked(lock):
                if worker is not None:
                    worker.poll()
                results = read_json(so_far) or []
                if said < len(results) < len(job["steps"]):
                    said = len(results)
                    self.patiently(self.report, job["command_id"], results, False)
                time.sleep(TICK)
            if worker is not None:
                worker.wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        results = read_json(os.path.join(folder, "result.json"))
        if results is None:
            results = read_json(so_far) or []
            step = job["steps"][len(results)]
            if not exists(os.path.join(folder, "again")):
                results.append(failed(step, "the worker of this command ended without a result"))
            elif self.reboot(job["command_id"]):
                return
            else:
                results.append(failed(step, "this host cannot be rebooted"))
        for result in results:
            log("command %s: %s: %s, exit status %d"
                % (job["command_id"], result["name"], result["status"], result["code"]))
        self.patiently(self.report, job["command_id"], results, True)
        remove_folder(folder)
        with self.lock:
            self.held.discard(job["command_id"])

    def report(self, command_id, results, final):
        body = {"command_id": command_id, "final": final, "steps": results}
        status, text = self.cloud.agent("ssmmessages", "result", body)
        if status >= 300:
            # Not a matter of time: the service restarted and forgot it, or it never was.
            log("command %s: its end was not wanted: %d %s" % (command_id, status, text))

    def reboot(self, command_id):
        """Whether the host goes down now."""
        log("command %s asks for a reboot" % command_id)
        self.rebooting = True
        self.rebooting = subprocess.run(self.reboot_command, shell=True, check=False).returncode == 0
        return self.rebooting


def locked(file):
    """Whether the lock could be had at once; it is kept then."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description="Stand-in for amazon-ssm-agent in the rehearsal cloud.")
    parser.add_argument("--metadata", default="http://169.254.169.254", metavar="URL")
    parser.add_argument("--endpoint", metavar="URL", help="ask this instead of the services' own names")
    parser.add_argument("--state", default="/var/lib/amazon-ssm-agent-stand-in", metavar="DIR")
    parser.add_argument("--reboot-command", default="systemctl reboot", metavar="COMMAND")
    parser.add_argument("--worker", metavar="DIR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    Agent(Cloud(args.metadata, args.endpoint), args.state, args.reboot_command).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
