#!/usr/bin/python3 -IS
"""Stand-in for amazon-ssm-agent on a host of the rehearsal cloud. It is not Amazon's agent.

It registers at the metadata address, asks for commands, runs each as the agent does, and says how it ended:

- the lines are one file, mode 0700 in a private folder, run by `sh -c FILE` as root in a process group of its own;
- a timeout or a cancellation kills the group with SIGKILL; exit status 137 means timed out or cancelled;
- exit status 194 reboots the host and runs the command once more afterwards;
- the first 24,000 bytes of standard output and 8,000 of standard error are kept, the rest is counted.

Each command has a worker process of its own that outlives a restart of this agent, as with Amazon's. A command that is
interrupted by a reboot that it did not ask for is never reported; it expires.
"""

import argparse
import codecs
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

VERSION = "stand-in"
WORKERS = 5
STDOUT_KEPT = 24_000
STDERR_KEPT = 8_000
# The agent takes anything outside of these bounds for an hour.
TIMEOUT_LEAST, TIMEOUT_MOST, TIMEOUT_ELSE = 5, 172_800, 3_600
EXIT_REBOOT = 194
EXIT_STOPPED = 137
# How often a worker looks for a cancellation.
TICK = 0.2
# After the group was killed, output that others still hold open is waited for so long.
DRAIN = 1.0
# The service answers a question for work within seconds.
PATIENCE = 30


def log(text):
    print(text, flush=True)


def milliseconds():
    return time.time_ns() // 1_000_000


def write_file(path, text, mode):
    """Whole or not at all."""
    draft = path + ".new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.rename(draft, path)


def read_json(path):
    """None when there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return json.load(file)
    except FileNotFoundError:
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

    def add_line(self, text):
        if self.size and not (self.size == len(self.kept) and self.kept.endswith(b"\n")):
            text = "\n" + text
        self.add(text.encode())

    def text(self):
        # A character that the limit cuts in two is left out; bytes that are none are marked as such.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(bytes(self.kept), final=self.size == len(self.kept))


class Run:
    """Runs the script of a job to its end."""

    def __init__(self, folder, job):
        self.folder = folder
        self.job = job
        self.stdout = Head(STDOUT_KEPT)
        self.stderr = Head(STDERR_KEPT)
        self.stopped_by = None

    def result(self):
        started = milliseconds()
        code = self.execute()
        cancelled = self.stopped_by == "Cancelled"
        if code == 0:
            status = "Success"
        elif code == EXIT_STOPPED:
            status = "Cancelled" if cancelled else "TimedOut"
        else:
            status = "Failed"
        return {
            "command_id": self.job["command_id"],
            "status": status,
            "code": code,
            "stdout": self.stdout.text(),
            "stdout_bytes": self.stdout.size,
            "stderr": self.stderr.text(),
            "stderr_bytes": self.stderr.size,
            "started": started,
            "finished": milliseconds(),
        }

    def execute(self):
        environment = dict(os.environ)
        environment["SSM_COMMAND_ID"] = self.job["command_id"]
        environment["AWS_SSM_INSTANCE_ID"] = self.job["instance_id"]
        try:
            child = subprocess.Popen(
                ["sh", "-c", os.path.join(self.folder, "_script.sh")],
                cwd=self.job["working_directory"] or None,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self.stderr.add_line("failed to run commands: %s: %s" % (error.filename, error.strerror))
            return 1
        self.follow(child)
        status = child.wait()
        if self.stopped_by is not None:
            return EXIT_STOPPED
        if status == 0 or status in (EXIT_STOPPED, EXIT_REBOOT):
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
            for stream, head in ((child.stdout, self.stdout), (child.stderr, self.stderr)):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, head)
            while True:
                now = time.monotonic()
                if self.stopped_by is None:
                    if os.path.exists(os.path.join(self.folder, "cancel")):
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
        asked = self.job["execution_timeout"]
        if TIMEOUT_LEAST <= asked <= TIMEOUT_MOST:
            return asked
        log("command %s: timeout of %d s is out of bounds, taking %d s"
            % (self.job["command_id"], asked, TIMEOUT_ELSE))
        return TIMEOUT_ELSE


def ended(child):
    """Whether a child has ended, without forgetting it."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child.pid, options) is not None


def work(folder):
    """The worker's whole life. It inherited a lock that tells the agent that it lives."""
    job = read_json(os.path.join(folder, "job.json"))
    result = Run(folder, job).result()
    write_file(os.path.join(folder, "result.json"), json.dumps(result), 0o600)
    return 0


def empty_result(command_id, status, why):
    """How a command ended that no script ran for, or whose end nobody saw."""
    now = milliseconds()
    return {
        "command_id": command_id, "status": status, "code": -1,
        "stdout": "", "stdout_bytes": 0, "stderr": why, "stderr_bytes": len(why),
        "started": now, "finished": now,
    }


# --- All commands: the agent ---------------------------------------------------------------------------------------


class Unavailable(Exception):
    """The service did not answer, or not now."""


class Service:
    """Systems Manager, as far as an agent sees it."""

    def __init__(self, endpoint):
        # Not needed by workers, and slow to load.
        import http.client
        import urllib.parse

        self.http = http.client
        parts = urllib.parse.urlsplit(endpoint)
        self.host, self.port = parts.hostname, parts.port or 80

    def call(self, path, body):
        """The status and the text of the answer."""
        connection = self.http.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            data = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/rehearsal/agent/" + path, data, headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, self.http.HTTPException) as error:
            raise Unavailable("%s: %r" % (path, error)) from error
        finally:
            connection.close()
        # 403: this host's address is not known (yet).
        if answer.status == 403 or answer.status >= 500:
            raise Unavailable("%s: %d %s" % (path, answer.status, text))
        return answer.status, text


class Agent:
    """Gets commands, starts workers, reports."""

    def __init__(self, service, state, reboot_command):
        self.service = service
        self.state = state
        self.jobs = os.path.join(state, "jobs")
        self.reboot_command = reboot_command
        self.boot = boot()
        self.instance_id = None
        self.lock = threading.Lock()
        self.held = set()
        self.rebooting = False

    def run(self, register_after):
        os.makedirs(self.jobs, mode=0o700, exist_ok=True)
        os.chmod(self.state, 0o700)
        known = os.path.join(self.state, "registration.json")
        if read_json(known) is None:
            time.sleep(register_after)
        self.patiently(self.register)
        write_file(known, json.dumps({"instance_id": self.instance_id}), 0o600)
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
        status, text = self.service.call("register", {
            "agent_version": VERSION,
            "platform_name": release.get("NAME", "Linux"),
            "platform_version": release.get("VERSION_ID", ""),
            "computer_name": os.uname().nodename,
            "workers": WORKERS,
        })
        if status != 200:
            raise Unavailable("register: %d %s" % (status, text))
        self.instance_id = json.loads(text)["instance_id"]
        log("registered as %s" % self.instance_id)

    def poll(self):
        with self.lock:
            held = sorted(self.held)
        status, text = self.service.call("poll", {"held": held})
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
        job["instance_id"] = self.instance_id
        write_file(os.path.join(folder, "_script.sh"), "\n".join(job.pop("commands")) + "\n", 0o700)
        self.start(folder, job)

    def start(self, folder, job):
        """Starts a worker that holds the job's lock for as long as it lives."""
        job["boot"] = self.boot
        write_file(os.path.join(folder, "job.json"), json.dumps(job), 0o600)
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
        if os.path.isdir(folder):
            write_file(os.path.join(folder, "cancel"), "", 0o600)
            return
        # It never came here, or its end is being reported.
        self.report(empty_result(command_id, "Cancelled", ""))

    def recover(self):
        """Goes on with what an earlier run of this agent left."""
        for name in sorted(os.listdir(self.jobs)):
            folder = self.folder(name)
            job = read_json(os.path.join(folder, "job.json"))
            rebooted = job is not None and job["boot"] != self.boot
            again = os.path.join(folder, "again")
            if job is None:
                # Ended between making the folder and the job; the service offers it again.
                shutil.rmtree(folder)
            elif os.path.exists(again):
                if rebooted:
                    os.remove(again)
                    self.start(folder, job)
                elif not self.reboot(name):
                    os.remove(again)
                    self.watch(folder, job, None)
            elif rebooted and read_json(os.path.join(folder, "result.json")) is None:
                log("command %s was interrupted by a reboot" % name)
                shutil.rmtree(folder)
            else:
                self.watch(folder, job, None)

    def watch(self, folder, job, worker):
        with self.lock:
            self.held.add(job["command_id"])
        threading.Thread(target=self.see_end, args=(folder, job, worker), daemon=True).start()

    def see_end(self, folder, job, worker):
        """Waits for the worker's end and reports it."""
        if worker is not None:
            worker.wait()
        with open(os.path.join(folder, "lock"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.path.join(folder, "result.json")
        result = read_json(path)
        if result is None:
            result = empty_result(
                job["command_id"], "Failed", "the worker of this command ended without a result"
            )
        elif result["code"] == EXIT_REBOOT:
            write_file(os.path.join(folder, "again"), "", 0o600)
            os.remove(path)
            if self.reboot(job["command_id"]):
                return
            result = empty_result(job["command_id"], "Failed", "this host cannot be rebooted")
        log("command %s: %s, exit status %d" % (job["command_id"], result["status"], result["code"]))
        self.patiently(self.report, result)
        shutil.rmtree(folder)
        with self.lock:
            self.held.discard(job["command_id"])

    def report(self, result):
        status, text = self.service.call("result", result)
        if status >= 300:
            # Not a matter of time: the service restarted and forgot it, or it never was.
            log("command %s: its end was not wanted: %d %s" % (result["command_id"], status, text))

    def reboot(self, command_id):
        """Whether the host goes down now."""
        log("command %s asks for a reboot" % command_id)
        self.rebooting = True
        self.rebooting = subprocess.run(self.reboot_command, shell=True, check=False).returncode == 0
        return self.rebooting


def main():
    parser = argparse.ArgumentParser(description="Stand-in for amazon-ssm-agent in the rehearsal cloud.")
    parser.add_argument("--endpoint", default="http://169.254.169.254", metavar="URL")
    parser.add_argument("--state", default="/var/lib/amazon-ssm-agent-stand-in", metavar="DIR")
    parser.add_argument("--register-after", type=float, default=2, metavar="SECONDS",
                        help="wait so long before the first registration")
    parser.add_argument("--reboot-command", default="systemctl reboot", metavar="COMMAND")
    parser.add_argument("--worker", metavar="DIR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    agent = Agent(Service(args.endpoint), args.state, args.reboot_command)
    agent.run(args.register_after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
