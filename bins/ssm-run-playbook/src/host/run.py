# Runs on the host as root: starts ansible-playbook for one run and answers with a recap.
#
# Two processes. The first belongs to the Systems Manager command: the agent kills it with SIGKILL on cancel and on
# timeout, without a warning. The second has a session of its own, holds the lock and watches a pipe to the first: when
# that closes, or when the time is over, it lets Ansible end its task, then ends everything that is left of it, and
# only then releases the lock. It adopts orphans, so nothing of a cancelled run survives.
#
# stdout: one line `ssm-run-playbook/1 {json}` of at most 1,500 characters, then what fits of events and log.
import base64
import configparser
import ctypes
import fcntl
import gzip
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

MARKER = "ssm-run-playbook/1 "
RECAP_LIMIT = 1500  # ListCommandInvocations keeps the first 2,500 characters of an output.
STDOUT_LIMIT = 23000  # GetCommandInvocation keeps the first 24,000.
GRACE_SECONDS = 10  # for the running task to end by itself
KILL_SECONDS = 3  # between SIGTERM and SIGKILL
KEEP = 5  # finished runs and bundles that stay for inspection and reuse
PR_SET_CHILD_SUBREAPER = 36


def fit(recap):
    """The recap's line, cut down to RECAP_LIMIT by giving up the least important first."""
    def line():
        return MARKER + json.dumps(recap, separators=(",", ":"))

    for key in ("slowest", "error", "failure"):
        while len(line()) > RECAP_LIMIT and recap.get(key):
            value = recap[key]
            if key == "slowest":
                value.pop()
            elif key == "error":
                recap[key] = value[: len(value) * 2 // 3]
            else:
                longest = max(value, key=lambda name: len(str(value[name] or "")))
                shorter = str(value[longest] or "")
                if len(shorter) < 20:
                    recap[key] = None
                else:
                    value[longest] = shorter[: len(shorter) * 2 // 3]
    return line()


def pack(path, data):
    """Writes data compressed, as one line of base64, and returns its length and checksum."""
    text = base64.b64encode(gzip.compress(data, 9, mtime=0))
    with open(path, "wb") as file:
        file.write(text)
    return [len(text), hashlib.sha256(text).hexdigest()]


def descendants(root):
    """Every process below root, by asking /proc."""
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # It ended while we looked.
        children.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Supervisor:
    def __init__(self, base, folder, pipe):
        self.base, self.folder, self.pipe = base, folder, pipe
        self.work = os.path.join(folder, "work")
        self.private = os.path.join(folder, "private")
        self.events = os.path.join(folder, "events.jsonl")
        self.log = os.path.join(folder, "ansible.log")
        self.stop = os.path.join(folder, "stop")
        with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
            self.request = json.load(file)
        os.unlink(os.path.join(folder, "request.json"))  # It holds the extra vars.
        self.began = time.monotonic()
        self.config = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
        self.host, self.has_interpreter = self.find_host()

    def find_host(self):
        """Which of the command's hosts this one is."""
        hosts = self.request["hosts"]
        own = os.environ.get("AWS_SSM_INSTANCE_ID", "")  # set by the agent
        known = "/var/lib/cloud/data/instance-id"  # written by cloud-init
        if own not in hosts and os.path.exists(known):
            with open(known, encoding="utf-8") as file:
                own = file.read().strip()
        if len(hosts) == 1:
            own = next(iter(hosts))
        if own not in hosts:
            raise LookupError("this host does not know its instance ID")
        return hosts[own]["name"], hosts[own]["has_interpreter"]

    def parent_gone(self, seconds):
        return bool(select.select([self.pipe], [], [], seconds)[0])

    def lock(self):
        """Takes the lock of this host, or returns who has it."""
        self.lock_file = open(os.path.join(self.base, "lock"), "a+", encoding="utf-8")
        until = time.monotonic() + self.request["lock_wait_s"]
        while True:
            try:
                fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until or self.parent_gone(0.2):
                    self.lock_file.seek(0)
                    return self.lock_file.read().strip() or "another run"
        self.lock_file.seek(0)
        self.lock_file.truncate()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.lock_file.write("run %s since %s" % (self.request["run"], now))
        self.lock_file.flush()
        return None

    def prune(self):
        """With the lock held no other run is alive: what they left can go."""
        for room, inner in (("runs", ("work", "private", "request.json")), ("bundles", ())):
            folder = os.path.join(self.base, room)
            old = [os.path.join(folder, name) for name in os.listdir(folder)]
            old = [path for path in old if path not in (self.folder, self.request["bundle"])]
            old.sort(key=os.path.getmtime, reverse=True)
            for path in old[KEEP - 1:]:
                shutil.rmtree(path, ignore_errors=True)
            for path in old[: KEEP - 1]:
                for name in inner:
                    inside = os.path.join(path, name)
                    if os.path.isdir(inside):
                        shutil.rmtree(inside, ignore_errors=True)
                    elif os.path.exists(inside):
                        os.unlink(inside)

        incoming = os.path.join(self.base, "incoming")  # Another run may be sending right now.
        for name in os.listdir(incoming):
            path = os.path.join(incoming, name)
            if os.path.getmtime(path) < time.time() - 3600:
                shutil.rmtree(path, ignore_errors=True)

    def environment(self):
        env = dict(os.environ)
        env.setdefault("HOME", "/root")
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        env["PATH"] = env["PATH"] + ":" + system if env.get("PATH") else system
        tool = os.path.join(self.work, ".ssm-run-playbook")
        env.update(
            LC_ALL="C.UTF-8",
            ANSIBLE_CALLBACK_PLUGINS=os.path.join(tool, "callback_plugins"),
            ANSIBLE_CALLBACKS_ENABLED="ssm_run_playbook",
            ANSIBLE_STDOUT_CALLBACK="default",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_NOCOWS="1",
            ANSIBLE_LOCALHOST_WARNING="0",
            ANSIBLE_INVENTORY_ENABLED="ansible.builtin.yaml",
            ANSIBLE_PIPELINING="1",
            ANSIBLE_RETRY_FILES_ENABLED="0",
            SSM_RUN_PLAYBOOK_EVENTS=self.events,
            SSM_RUN_PLAYBOOK_ROOT=self.work,
            SSM_RUN_PLAYBOOK_STOP=self.stop,
        )
        env.pop("ANSIBLE_CONFIG", None)
        self.config.read(os.path.join(self.work, "ansible.cfg"), encoding="utf-8")
        for room, variable, options in (
            ("roles", "ANSIBLE_ROLES_PATH", ("roles_path",)),
            ("collections", "ANSIBLE_COLLECTIONS_PATH", ("collections_path", "collections_paths")),
        ):
            path = os.path.join(self.work, room)
            known = any(self.config.has_option("defaults", option) for option in options)
            if os.path.isdir(path) and not known:
                env[variable] = path
        return env

    def command(self, ansible):
        """Writes the private files and returns the command line, which holds no variable."""
        os.mkdir(self.private, 0o700)
        variables = {"ansible_connection": "local"}
        if not (self.has_interpreter or self.config.has_option("defaults", "interpreter_python")):
            system = "/usr/bin/python3"
            variables["ansible_python_interpreter"] = system if os.path.exists(system) else sys.executable
        # A second inventory source makes this host local, and only this one: a task delegated to another host fails
        # loudly instead of running here.
        here = os.path.join(self.private, "this-host.json")
        with open(here, "w", encoding="utf-8") as file:
            json.dump({"all": {"hosts": {self.host: variables}}}, file)
        command = [ansible, "-i", self.request["inventory"], "-i", here, "--limit", self.host]
        for number, text in enumerate(self.request["extra_vars"]):
            path = os.path.join(self.private, "extra-vars-%d.yml" % number)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            command += ["-e", "@" + path]
        return command + self.request["flags"] + [self.request["playbook"]]

    def supervise(self, main):
        """Waits for Ansible; returns its status and why it was stopped, if it was."""
        status, reason, stopping, termed = None, None, None, False
        until = self.began + self.request["timeout_s"]
        while True:
            gone = self.parent_gone(0.05) if reason != "cancelled" else bool(time.sleep(0.05))
            while True:
                try:
                    pid, code = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                if pid == main:
                    status = code
            now = time.monotonic()
            if status is None and stopping is None and (gone or now >= until):
                reason, stopping = ("cancelled" if gone else "timeout"), now
                open(self.stop, "w", encoding="utf-8").close()
            if stopping is None:
                if status is not None:
                    return status, reason
                continue
            left = descendants(os.getpid())
            if not left:
                return status, reason
            ended = status is not None
            if not termed and (ended or now >= stopping + GRACE_SECONDS):
                signal_all(left, signal.SIGTERM)
                termed, stopping = True, now
            elif termed and now >= stopping + KILL_SECONDS:
                signal_all(left, signal.SIGKILL)

    def run(self):
        holder = self.lock()
        if holder is not None:
            return {"state": "locked", "error": holder}
        self.prune()
        env = self.environment()
        ansible = shutil.which("ansible-playbook", path=env["PATH"])
        if ansible is None:
            return {"state": "no-ansible", "error": "ansible-playbook is not on PATH"}
        recap = {"state": "done"}
        try:
            with open(self.log, "wb") as log:
                process = subprocess.Popen(
                    self.command(ansible),
                    cwd=self.work,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    umask=0o022,  # Ours is 077, which must not reach the files that tasks make.
                )
            code, reason = self.supervise(process.pid)
        finally:
            shutil.rmtree(self.private, ignore_errors=True)
        if reason is not None:
            recap["state"] = reason
        rc = None
        if code is not None:
            rc = os.WEXITSTATUS(code) if os.WIFEXITED(code) else 128 + os.WTERMSIG(code)
        recap["rc"] = rc
        recap["ms"] = int((time.monotonic() - self.began) * 1000)
        self.summarise(recap)
        return recap

    def summarise(self, recap):
        """Adds figures, the first failure, the slowest tasks and where to read the rest."""
        lines = b""
        if os.path.exists(self.events):
            with open(self.events, "rb") as file:
                lines = file.read()
        stats, failures, timed, last, no_hosts = None, [], [], None, 0
        for line in lines.splitlines():
            event = json.loads(line)
            kind = event["e"]
            if kind == "stats":
                stats = event["hosts"].get(self.host, {})
            elif kind == "task":
                last = event["name"]
            elif kind == "result":
                timed.append((event["ms"], event["task"]))
                if event["status"] in ("failed", "unreachable"):
                    failures.append(event)
            elif kind == "no-hosts":
                no_hosts += 1
        if stats is not None:
            names = ("ok", "changed", "failures", "skipped", "unreachable", "rescued", "ignored")
            recap["stats"] = {name: stats.get(name, 0) for name in names}
        recap["tasks"] = len(timed)
        recap["last"] = last
        if failures:
            first = failures[0]
            recap["failures"] = len(failures)
            recap["failure"] = {key: first.get(key) for key in ("task", "file", "line", "module", "message")}
        timed.sort(reverse=True)
        recap["slowest"] = [[name[:80], ms] for ms, name in timed[:3] if ms >= 100]
        with open(self.log, "rb") as file:
            log = file.read().replace((self.work + os.sep).encode(), b"")
        if stats is None and recap["state"] == "done":
            text = log.decode("utf-8", "replace")
            starts = [at for at in (text.find("ERROR!"), text.find("[ERROR]")) if at >= 0]
            recap["error"] = (text[min(starts):] if starts else text[-900:]).strip()[:900]
        recap["events"] = pack(os.path.join(self.folder, "events.b64"), lines)
        recap["log"] = pack(os.path.join(self.folder, "log.b64"), log)


def supervisor_process(base, folder, pipe):
    os.setsid()
    os.umask(0o077)
    trouble = os.open(os.path.join(folder, "trouble.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(trouble, 1)
    os.dup2(trouble, 2)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        recap = Supervisor(base, folder, pipe).run()
    except Exception as error:
        import traceback

        traceback.print_exc()
        recap = {"state": "broken", "error": "%s: %s" % (type(error).__name__, error)}
    finally:
        for name in ("work", "private"):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    with open(os.path.join(folder, "recap"), "w", encoding="ascii") as file:
        file.write(fit(recap))


def main():
    base, folder = sys.argv[1:3]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(writer)
            supervisor_process(base, folder, reader)
            code = 0
        finally:
            os._exit(code)
    os.close(reader)
    os.waitpid(child, 0)
    path = os.path.join(folder, "recap")
    if not os.path.exists(path):
        print(MARKER + '{"state":"broken","error":"the supervisor on the host died"}')
        return 1
    with open(path, encoding="ascii") as file:
        line = file.read()
    print(line)
    recap = json.loads(line[len(MARKER):])
    left = STDOUT_LIMIT - len(line) - 20
    for name in ("events", "log"):
        path = os.path.join(folder, name + ".b64")
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                part = file.read(max(left, 0))
            left -= len(part)
            print("%s %s" % (name, part))
    # Never Ansible's own status: the agent reads 194 as "reboot" and 137 as "timed out".
    return 0 if recap["state"] == "done" and recap.get("rc") == 0 else 1


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    sys.exit(code)
