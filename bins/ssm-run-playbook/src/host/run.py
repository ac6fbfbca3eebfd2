# Runs on the host as root: starts ansible-playbook for one run and answers with a recap.
#
# Two processes. The first belongs to the Systems Manager command: the agent kills it with SIGKILL on cancel and on
# timeout, without a warning. The second has a session of its own, holds the lock and watches a pipe to the first: when
# that closes, or when the time is over, it lets Ansible end its task, then ends everything that is left of it, and
# only then releases the lock. It adopts orphans, so nothing of a cancelled run survives.
#
# Python 3.6 and newer.
#
# stdout: one line `ssm-run-playbook/1 {json}` of at most 1,500 characters, then what fits of events and log.
#
# With --allow-reboot the first process may end with 194 once Ansible asked for a reboot: the agent reboots the host and
# runs the script again, which finds this run's `resume` and runs the playbook from its start.
import sys

sys.dont_write_bytecode = True

import configparser
import ctypes
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from answer import MARKER, events_in, fit, keep_log, pack, pack_log, summarise
from decrypted import Masks
from leftovers import ROOMS, descendants, end_descendants, prune, reap, remove_folders, signal_all
from references import ReferenceError, Resolver, in_yaml, masks

STDOUT_LIMIT = 23000  # GetCommandInvocation keeps the first 24,000.
GRACE_SECONDS = 10  # for the running task to end by itself
SIGNAL_SECONDS = 2  # between two of the signals that end what does not end by itself
# Upon the first a module, as every Python, tidies its temporary folders away; as with Ctrl-C all get it at once.
NEXT_SIGNAL = {
    None: signal.SIGINT,
    signal.SIGINT: signal.SIGTERM,
    signal.SIGTERM: signal.SIGKILL,
    signal.SIGKILL: signal.SIGKILL,
}
PR_SET_CHILD_SUBREAPER = 36
EXIT_REBOOT = 194  # to the agent: reboot the host and run the script again
PLUGINS = "~/.ansible/plugins/%s:/usr/share/ansible/plugins/%s"  # where Ansible looks by default
HOLD_SECONDS = 120  # the lock is held so long for the agent to reboot the host


class Stopped(Exception):
    """The run shall end before Ansible began: `cancelled` or `timeout`."""


def system_language():
    """The language of the system's logins, as Debian and Red Hat keep it."""
    for path in ("/etc/default/locale", "/etc/locale.conf"):
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    name, _, value = line.strip().partition("=")
                    if name == "LANG" and value.strip("\"'"):
                        return value.strip("\"'")
    return "C.UTF-8"


class Supervisor:
    def __init__(self, base, folder, pipe):
        self.base, self.folder, self.pipe = base, folder, pipe
        self.work = os.path.join(folder, "work")
        self.private = os.path.join(folder, "private")
        self.events = os.path.join(folder, "events.jsonl")
        self.log = os.path.join(folder, "ansible.log")
        self.stop = os.path.join(folder, "stop")
        self.reboot = os.path.join(folder, "reboot")
        with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
            self.request = json.load(file)
        os.unlink(os.path.join(folder, "request.json"))  # It holds the extra vars.
        self.began, self.reboots = time.monotonic(), 0
        self.started = time.time()
        resumed = os.path.join(folder, "resumed")
        if os.path.exists(resumed):
            with open(resumed, encoding="utf-8") as file:
                before = json.load(file)
            self.reboots, self.started = before["reboots"], before["started"]
            # The clock may have been set at the boot; what was used up is between nothing and all.
            self.began -= min(max(time.time() - self.started, 0), self.request["timeout_s"])
        self.deadline = self.began + self.request["timeout_s"]
        self.waited = None  # milliseconds, and who held the lock
        self.masks = []
        self.decrypted = os.path.join(self.private, "decrypted")
        self.pids = set()  # of what was ended
        self.config = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
        self.config.read(os.path.join(self.work, "ansible.cfg"), encoding="utf-8")
        self.host, has_interpreter = self.find_host()
        self.python = None  # chosen by somebody else
        if not (has_interpreter or self.config.has_option("defaults", "interpreter_python")):
            system = "/usr/bin/python3"
            self.python = system if os.path.exists(system) else sys.executable

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
        began, waits = time.monotonic(), False
        until = min(began + self.request["lock_wait_s"], self.deadline)
        while True:
            try:
                fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self.lock_file.seek(0)
                holder = self.lock_file.read().strip() or "another run"
                self.waited = [int((time.monotonic() - began) * 1000), holder]
                if time.monotonic() >= until or self.parent_gone(0.2):
                    return holder
                if not waits:
                    waits = True
                    self.event("waiting", name=holder)
        self.lock_file.seek(0)
        self.lock_file.truncate()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.lock_file.write("run %s since %s" % (self.request["run"], now))
        self.lock_file.flush()
        return None

    def event(self, kind, **fields):
        descriptor = os.open(self.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps({"e": kind, **fields}, separators=(",", ":")) + "\n")

    def environment(self):
        """What tasks find, as a login of root has it."""
        env = dict(os.environ)
        user = pwd.getpwuid(os.geteuid())
        env.setdefault("HOME", user.pw_dir)
        env.update(USER=user.pw_name, LOGNAME=user.pw_name, SHELL=user.pw_shell or "/bin/sh")
        if not env.get("LANG"):
            env["LANG"] = system_language()
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        env["PATH"] = env["PATH"] + ":" + system if env.get("PATH") else system
        return env

    def settings(self, tasks):
        """What Ansible itself is started with. Our callback puts back what tasks find before the first of them runs, so
        that an Ansible that a task starts is nobody's but its own."""
        env = dict(tasks)
        env.pop("ANSIBLE_CONFIG", None)
        tool = os.path.join(self.work, ".ssm-run-playbook")
        env.update(
            LC_ALL="C.UTF-8",
            # The playbook's own callbacks and plugins beside ours: a variable takes the place of what ansible.cfg says.
            ANSIBLE_CALLBACK_PLUGINS=self.with_own(
                env, "ANSIBLE_CALLBACK_PLUGINS", ("callback_plugins",), ":", PLUGINS % ("callback", "callback"),
                os.path.join(tool, "callback_plugins"),
            ),
            ANSIBLE_CALLBACKS_ENABLED=self.with_own(
                env, "ANSIBLE_CALLBACKS_ENABLED", ("callbacks_enabled", "callback_whitelist"), ",", "", "ssm_run_playbook",
            ),
            ANSIBLE_INVENTORY_PLUGINS=self.with_own(
                env, "ANSIBLE_INVENTORY_PLUGINS", ("inventory_plugins",), ":", PLUGINS % ("inventory", "inventory"),
                os.path.join(tool, "inventory_plugins"),
            ),
            ANSIBLE_STDOUT_CALLBACK="default",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_NOCOWS="1",
            ANSIBLE_LOCALHOST_WARNING="0",
            ANSIBLE_INVENTORY_ENABLED="ssm_run_playbook,ansible.builtin.yaml",
            ANSIBLE_RETRY_FILES_ENABLED="0",
            # What Ansible puts aside, secrets included, goes with the run.
            ANSIBLE_LOCAL_TEMP=os.path.join(self.private, "tmp"),
        )
        for room, variable, options in (
            ("roles", "ANSIBLE_ROLES_PATH", ("roles_path",)),
            ("collections", "ANSIBLE_COLLECTIONS_PATH", ("collections_path", "collections_paths")),
        ):
            path = os.path.join(self.work, room)
            known = any(self.config.has_option("defaults", option) for option in options)
            if os.path.isdir(path) and not known:
                # In front of Ansible's own places: requirements.yml may say that hosts have something.
                own = ["~/.ansible/", "/usr/share/ansible/", "/etc/ansible/"]
                env[variable] = ":".join([path] + [folder + room for folder in own])
        return env

    def with_own(self, env, variable, options, separator, default, ours):
        """Our name in front of those that the variable, ansible.cfg or Ansible's own default have."""
        own = [env[variable]] if env.get(variable) else []
        for option in options:
            if self.config.has_option("defaults", option):
                own.append(self.config.get("defaults", option) or "")
        names = [name.strip() for name in (own[0] if own else default).replace("\n", separator).split(separator)]
        return separator.join([ours] + [name for name in names if name])

    def tell_callback(self, env, tasks, modules):
        """Writes down what our callback must know, and the variables that it puts back."""
        differ = {name for name in set(env) | set(tasks) if env.get(name) != tasks.get(name)}
        path = self.keep("callback.json", json.dumps({
            "events": self.events,
            "root": self.work,
            "stop": self.stop,
            "began": self.started,
            "masks": self.masks,
            "decrypted": self.decrypted,
            "diff": "--diff" in self.request["flags"],
            "reboot": self.reboot if self.request["allow_reboot"] else None,
            "modules": modules,
            "environ": {name: tasks.get(name) for name in differ},
        }))
        env["SSM_RUN_PLAYBOOK"] = path

    def secrets(self):
        """Resolves every reference. Returns the extra vars with the values in their places, and the vault passwords."""
        resolver = Resolver()
        extra_vars, vaults, values = list(self.request["extra_vars"]), [], []
        for mark, reference in self.request["references"]:
            value = resolver.value(reference)
            values.append(value)
            # Somewhere in one of them, where the runner put the mark in the reference's place.
            extra_vars = [text.replace('"%s"' % mark, in_yaml(value)) for text in extra_vars]
        for label, reference in self.request["vault_passwords"]:
            value = resolver.value(reference)
            values.append(value)
            vaults.append((label, value if isinstance(value, str) else json.dumps(value)))
        self.masks = masks(values)
        return extra_vars, vaults

    def secrets_in_time(self):
        """The secrets, unless the run shall end while nobody answers for them: a request cannot be called off."""
        answers = []

        def resolve():
            try:
                answers.append((self.secrets(), None))
            except Exception as error:
                answers.append((None, error))

        asking = threading.Thread(target=resolve, daemon=True)
        asking.start()
        while asking.is_alive():
            asking.join(0.05)
            if self.parent_gone(0):
                raise Stopped("cancelled")
            if time.monotonic() >= self.deadline:
                raise Stopped("timeout")
        secrets, error = answers[0]
        if error is not None:
            raise error
        return secrets

    def serve_modules(self, env):
        """Starts the process that runs modules; returns its number, its folder, and how Ansible reaches it."""
        if not self.python:
            return None, None, None
        # The path of a socket has at most 107 bytes.
        room = tempfile.mkdtemp(prefix="ssm-run-playbook-")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(room + "/socket")
            listener.listen(8)
            program = os.path.join(self.work, ".ssm-run-playbook", "module_server.py")
            server = subprocess.Popen(
                [self.python, program, str(listener.fileno()), room],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        return server.pid, room, [room + "/socket", self.python]

    def keep(self, name, text):
        """Writes a file that only root reads and that goes with the run."""
        path = os.path.join(self.private, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def command(self, ansible):
        """Writes the private files and returns the command line, which holds no variable."""
        os.mkdir(self.private, 0o700)
        extra_vars, vaults = self.secrets_in_time()
        variables = {"ansible_connection": "local", "ansible_pipelining": True}
        if self.python:
            variables["ansible_python_interpreter"] = self.python
        # A second inventory source makes this host local, and only this one: a task delegated to another host fails
        # loudly instead of running here.
        here = self.keep("this-host.json", json.dumps({"all": {"hosts": {self.host: variables}}}))
        command = [ansible, "-i", self.request["inventory"], "-i", here, "--limit", self.host]
        for number, text in enumerate(extra_vars):
            command += ["-e", "@" + self.keep("extra-vars-%d.yml" % number, text)]
        for number, (label, password) in enumerate(vaults):
            command += ["--vault-id", "%s@%s" % (label, self.keep("vault-%d" % number, password))]
        return command + self.request["flags"] + [self.request["playbook"]]

    def supervise(self, main):
        """Waits for Ansible; returns its status and why it was stopped, if it was."""
        status, reason, stopping, sent, gone = None, None, None, None, False
        while True:
            if gone:
                time.sleep(0.05)
            else:
                gone = self.parent_gone(0.05)
            status = reap().get(main, status)
            now = time.monotonic()
            if status is None and stopping is None and (gone or now >= self.deadline):
                reason, stopping = ("cancelled" if gone else "timeout"), now
                open(self.stop, "w", encoding="utf-8").close()
            if stopping is None:
                if status is None:
                    continue
                if not os.WIFSIGNALED(status):
                    return status, reason
                stopping = now  # Somebody killed it: what it left behind is in the middle of a task.
            left = descendants(os.getpid())
            self.pids.update(map(str, left))
            if not left:
                return status, reason
            if sent is None:
                due = status is not None or now >= stopping + GRACE_SECONDS
            else:
                due = sent == signal.SIGKILL or now >= stopping + SIGNAL_SECONDS
            if due:
                sent, stopping = NEXT_SIGNAL[sent], now
                signal_all(left, sent)

    def run(self):
        holder = self.lock()
        if holder is not None and time.monotonic() >= self.deadline:
            return {"state": "timeout", "lock": self.waited}
        if holder is not None:
            return {"state": "locked", "error": holder}
        prune(self.base, self.folder, self.request["bundle"])
        tasks = self.environment()
        ansible = shutil.which("ansible-playbook", path=tasks["PATH"])
        if ansible is None:
            return {"state": "no-ansible", "error": "ansible-playbook is not on PATH"}
        recap = {"state": "done", "reboots": self.reboots, "lock": self.waited}
        room = None
        if self.reboots:
            self.event("resumed", name="reboot %d" % self.reboots)
        try:
            command = self.command(ansible)
            server, room, modules = self.serve_modules(tasks)
            env = self.settings(tasks)
            self.tell_callback(env, tasks, modules)
            raw = os.path.join(self.private, "ansible.log")
            with open(raw, "wb") as log:
                process = subprocess.Popen(
                    command,
                    cwd=self.work,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: os.umask(0o022),  # Ours is 077, which must not reach the files that tasks make.
                )
            code, reason = self.supervise(process.pid)
            if server in descendants(os.getpid()):
                os.kill(server, signal.SIGKILL)
            keep_log(raw, self.log, self.work + os.sep, Masks(self.masks, self.decrypted).all())
        except ReferenceError as error:
            return {"state": error.state, "error": str(error)}
        except Stopped as stopped:
            return {"state": str(stopped), "last": "resolving secrets"}
        finally:
            shutil.rmtree(self.private, ignore_errors=True)
            remove_folders(room, self.pids, self.started)
        rc = None
        if code is not None:
            rc = os.WEXITSTATUS(code) if os.WIFEXITED(code) else 128 + os.WTERMSIG(code)
        # 99: Ansible was interrupted between two tasks, as our callback does for a reboot.
        if os.path.exists(self.reboot) and reason is None and rc in (0, 99):
            return self.prepare_reboot()
        if reason is not None:
            recap["state"] = reason
        recap["rc"] = rc
        recap["ms"] = int((time.monotonic() - self.began) * 1000)
        lines = b""
        if os.path.exists(self.events):
            with open(self.events, "rb") as file:
                lines = file.read()
        summarise(recap, self.host, lines, self.log)
        recap["events"] = pack(os.path.join(self.folder, "events.b64"), lines)
        recap["log"] = pack_log(os.path.join(self.folder, "log.b64"), self.log)
        return recap

    def prepare_reboot(self):
        """Leaves what the script finds after the reboot, and somebody who holds the lock until then."""
        os.unlink(self.reboot)
        self.event("rebooting", name="reboot %d" % (self.reboots + 1))
        resume = os.path.join(self.folder, "resume")
        with open(resume + ".new", "w", encoding="utf-8") as file:
            json.dump({"reboots": self.reboots + 1, "started": self.started}, file)
        os.rename(resume + ".new", resume)
        os.sync()
        if os.fork() == 0:
            until = time.monotonic() + HOLD_SECONDS
            while os.path.exists(resume) and time.monotonic() < until:
                time.sleep(0.1)
            os._exit(0)
        return {"state": "reboot"}


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
        end_descendants()  # The lock is free when this process ends.
        recap = {"state": "broken", "error": "%s: %s" % (type(error).__name__, error)}
    finally:
        for name in ROOMS:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    with open(os.path.join(folder, "recap"), "w", encoding="ascii") as file:
        file.write(fit(recap))


def follow(events, child):
    """Waits for the supervisor, and says on stderr what it and Ansible are doing: the number of results, the event."""
    results, at = 0, 0
    while True:
        ended = os.waitpid(child, os.WNOHANG)[0]
        if os.path.exists(events):
            with open(events, "rb") as file:
                file.seek(at)
                whole = file.read().rpartition(b"\n")[0]
            at += len(whole) + bool(whole)
            for event in events_in(whole):
                results += event["e"] == "result"
                if event["e"] in ("task", "waiting", "rebooting", "resumed"):
                    sys.stderr.write("%d %s\n" % (results, json.dumps(event, separators=(",", ":"))))
            sys.stderr.flush()
        if ended:
            return
        time.sleep(0.3)


def main():
    base, folder = sys.argv[1:3]
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        live = json.load(file)["live"]
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
    if live:
        follow(os.path.join(folder, "events.jsonl"), child)
    else:
        os.waitpid(child, 0)
    path = os.path.join(folder, "recap")
    if not os.path.exists(path):
        print(MARKER + '{"state":"broken","error":"the supervisor on the host died"}')
        return 1
    with open(path, encoding="ascii") as file:
        line = file.read()
    recap = json.loads(line[len(MARKER):])
    if recap["state"] == "reboot":
        os.unlink(path)
        return EXIT_REBOOT
    print(line)
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
