# Runs on the host, inside ansible-playbook: writes one JSON line per event, for ansible-core 2.14 to 2.19 and later.
# Of a result only its status, its message and, when asked for, its diff are written, and neither of a task with no_log.
from __future__ import annotations

import gc
import json
import os
import re
import sys
import time

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader, connection_loader

TOOL = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.append(TOOL)
import decrypted  # noqa: E402
import module_server  # noqa: E402

sys.path.remove(TOOL)

DOCUMENTATION = """
name: ssm_run_playbook
type: notification
short_description: one JSON line per event
description: Writes plays, tasks, results and the final recap to the file that the settings named by SSM_RUN_PLAYBOOK name.
"""

MESSAGE_LIMIT = 2000
DIFF_LIMIT = 8000
CUSTOM_LIMIT = 1 << 20  # characters, as JSON; what does not fit into the answer is fetched in slices of 23,000, packed
REBOOTS = 3
CENSORED = "hidden because of no_log"
FOREIGN = ("name", "task", "message", "diff")  # fields of events that may show a secret


def text_of(value):
    return value if isinstance(value, str) else json.dumps(value, default=str)


def said(result):
    """What a program or a module wrote, and where; its standard output only when it has failed."""
    keys = ("module_stderr", "stderr") + (("stdout",) if result.get("rc") else ())
    for key in keys:
        text = text_of(result.get(key) or "").strip()
        if text:
            return key, text
    return "", ""


def verdict(result, task):
    """Which condition of the task made a failure of its result, where its message does not say so."""
    if "assertion" in result:
        return "assert: %s" % text_of(result["assertion"])
    conditions = getattr(task, "failed_when", None)
    # Items of a loop were judged one by one, and the task as a whole by them.
    if result.get("failed_when_result") and conditions and "results" not in result:
        return "failed_when: %s" % joined(conditions)
    conditions = getattr(task, "until", None)
    if conditions and result.get("attempts") and "results" not in result:
        return "until: %s (not within %s attempts)" % (joined(conditions), text_of(result["attempts"]))
    return ""


def joined(conditions):
    return " and ".join(map(text_of, conditions if isinstance(conditions, list) else [conditions]))


def headline(result):
    """Ansible's message; of a program that failed also its status and the last line that it wrote."""
    # `include_vars` has its own key, and task files that cannot be read another one.
    text = next((text_of(result[key]).strip() for key in ("message", "reason", "msg") if result.get(key)), "")
    if not result.get("rc"):
        return text
    last = said(result)[1].rpartition("\n")[2].strip()[-300:]
    end = " (rc %s)" % text_of(result["rc"]) + (": " + last if last and last not in text else "")
    return text + end


def excerpt(result):
    """Since ansible-core 2.19: the place that the innermost cause is about, with its lines and a mark below them."""
    event, found = getattr(getattr(result, "exception", None), "event", None), ""
    while event is not None:
        found = getattr(event, "formatted_source_context", None) or found
        event = getattr(getattr(event, "chain", None), "event", None)
    return found.strip("\n")


def message_of(result, hidden, task=None):
    """What a person needs to read of a failed or skipped result, and nothing of a censored one."""
    if hidden or "censored" in result:
        return CENSORED
    parts = [headline(result)] if headline(result) else []
    failed_items = [
        item for item in result.get("results") or [] if isinstance(item, dict) and item.get("failed")
    ]
    for item in failed_items[:5]:
        label = text_of(item.get("_ansible_item_label", item.get("item", "")))
        parts.append("item %s: %s" % (label[:200], message_of(item, False, task)))
    key, text = said(result)
    reason = verdict(result, task)
    if reason:
        parts.append(reason)
        # A program that ended well by itself says what the condition saw.
        if not text and text_of(result.get("stdout") or "").strip():
            parts.append("rc %s" % text_of(result.get("rc", "-")))
            parts.append("stdout: %s" % text_of(result["stdout"]).strip()[-800:])
    if "\n" in text or (text and not (result.get("rc") and parts)):
        parts.append("%s: %s" % (key, text[-800:]))
    if not parts and result.get("skip_reason"):
        parts.append(text_of(result["skip_reason"]))
    return "\n".join(parts)[:MESSAGE_LIMIT]


class Reboots:
    """Lets `ansible.builtin.reboot` ask for a reboot. After it the playbook runs again from its start, and a task that
    got its reboot goes on as one that has rebooted."""

    def __init__(self, flag):
        self.flag = flag
        self.pending = set()  # tasks whose handlers have not run
        for name in ("ansible.builtin.reboot", "ansible.legacy.reboot"):
            plugin = action_loader.get(name, class_only=True)
            plugin.run = lambda action, tmp=None, task_vars=None: self.run(action)

    def lines(self, name):
        path = self.flag + name
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()

    def add(self, name, line):
        with open(self.flag + name, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def run(self, action):
        """In the worker's process, in place of the action's own `run`."""
        action._supports_check_mode = True
        task = action._task
        if task.check_mode:
            return {"changed": True, "rebooted": True, "elapsed": 0}
        place = task.get_path() or task.get_name()
        if os.path.exists(self.flag):
            return {"changed": False, "rebooted": False, "msg": "the host reboots after this task"}
        asked = self.lines("-asked")
        passed = "-passed-%d" % len(asked)  # since the last reboot
        if asked.count(place) > self.lines(passed).count(place):
            self.add(passed, place)
            return {"changed": True, "rebooted": True, "elapsed": 0}
        if self.pending:
            text = "handlers notified by %s would be lost by the reboot; put `ansible.builtin.meta: flush_handlers` before it"
            return {"failed": True, "changed": False, "rebooted": False, "msg": text % ", ".join(sorted(self.pending))}
        if len(asked) >= REBOOTS:
            text = "this run has rebooted the host %d times; the condition of this task does not become false"
            return {"failed": True, "changed": False, "rebooted": False, "msg": text % len(asked)}
        self.add("-asked", place)
        self.add("", place)
        return {"changed": False, "rebooted": False, "msg": "the host reboots, then the playbook runs again"}


def has_rescue(task):
    """Whether a failure of this task is caught by a rescue section around it."""
    # What is imported stands in the block in place of the import, which is still its parent.
    chain, parent = {task._uuid}, task._parent
    while parent is not None:
        inside = [one._uuid for one in getattr(parent, "block", None) or []]
        if getattr(parent, "rescue", None) and not chain.isdisjoint(inside):
            return True
        chain.add(parent._uuid)
        parent = parent._parent
    return False


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "ssm_run_playbook"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        with open(os.environ["SSM_RUN_PLAYBOOK"], encoding="utf-8") as file:
            settings = json.load(file)
        self.root, self.stop = settings["root"], settings["stop"]
        self.aside = constants.DEFAULT_LOCAL_TMP + os.sep
        descriptor = os.open(settings["events"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.file = os.fdopen(descriptor, "w", encoding="utf-8")
        self.began, self.wants_diff = settings["began"], settings["diff"]
        self.reboots = Reboots(settings["reboot"]) if settings["reboot"] else None
        # Ansible looks for results a thousand times a second by default, which takes a tenth of a processor of every host.
        if constants.DEFAULT_INTERNAL_POLL_INTERVAL == 0.001:
            constants.DEFAULT_INTERNAL_POLL_INTERVAL = 0.005
        if settings["modules"]:
            module_server.use(connection_loader, *settings["modules"])
        self.masks = decrypted.Masks(settings["masks"], settings["decrypted"])
        # Ansible has read its settings. What tasks start, another Ansible perhaps, finds nothing of ours.
        for name, value in settings["environ"].items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        os.environ.pop("SSM_RUN_PLAYBOOK", None)
        self.started = {}
        self.hidden_stats = set()

    def write(self, kind, **fields):
        """Hosts, files, modules and states are the playbook's own words, whatever a secret says as well."""
        event = {key: self.masked(value) if key in FOREIGN else value for key, value in fields.items()}
        line = json.dumps({"e": kind, **event}, separators=(",", ":"), default=str)
        self.file.write(line + "\n")
        self.file.flush()

    def masked(self, value):
        if not self.masks.all():
            return value
        if isinstance(value, dict):
            return {self.masked(key): self.masked(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.masked(one) for one in value]
        if isinstance(value, str):
            for text in self.masks.texts:
                value = value.replace(text, "***")
        return value

    def short(self, text):
        """Files as a person knows them, relative to the ansible folder; what Ansible put aside by its name alone."""
        text = text.replace(self.aside, "")
        return text.replace(self.root + os.sep, "") if self.root else text

    def boundary(self):
        """A run that must end or reboot does so between two tasks, when there is time for that."""
        for path, kind in ((self.stop, "stopped"), (self.reboots and self.reboots.flag, "interrupted")):
            if path and os.path.exists(path):
                self.write(kind)
                raise KeyboardInterrupt

    def where(self, task):
        """File (relative to the ansible folder) and line of a task."""
        path = ""
        try:
            path = task.get_path() or ""
        except Exception:  # A task that Ansible made itself has no place in a file.
            return None, None
        file, _, line = path.rpartition(":")
        if not file or not line.isdigit():
            return None, None
        if self.root and file.startswith(self.root + os.sep):
            file = file[len(self.root) + 1:]
        return file, int(line)

    def module(self, task):
        return getattr(task, "resolved_action", None) or task.action

    def v2_playbook_on_play_start(self, play):
        self.boundary()
        # A collection in a worker would touch, and so copy, every page that it shares with this process.
        gc.freeze()
        self.write("play", name=play.get_name().strip())

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.boundary()
        file, line = self.where(task)
        self.write("task", name=task.get_name().strip(), module=self.module(task), file=file, line=line)

    def v2_playbook_on_handler_task_start(self, task):
        if self.reboots:
            self.reboots.pending.clear()
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_cleanup_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host, task):
        self.started[(host.get_name(), task._uuid)] = (time.monotonic(), time.time())

    def result(self, result, status, with_message):
        task, host = result._task, result._host.get_name()
        fields = getattr(result, "_task_fields", None) or {}
        data = result._result
        began = self.started.pop((host, task._uuid), None)
        elapsed = 0 if began is None else int((time.monotonic() - began[0]) * 1000)
        at = int(((time.time() if began is None else began[1]) - self.began) * 1000)
        file, line = self.where(task)
        event = {
            "host": host,
            "status": status,
            "task": task.get_name().strip(),
            "module": self.module(task),
            "file": file,
            "line": line,
            "at": max(at, 0),
            "ms": elapsed,
        }
        hidden = fields.get("no_log") is True or "censored" in data
        if with_message:
            message = message_of(self.masked(data), hidden, task)
            # Older versions say at length where the task begins, which the event has.
            head, mark, rest = message.partition("\n\nThe error appears to be in '")
            if mark and rest.startswith("%s': line %s," % (task.get_path() or "").rpartition(":")[::2]):
                message = head
            if not hidden:
                message += self.masked(self.cause(result, fields, message))
            event["message"] = self.short(message)[:MESSAGE_LIMIT]
        if self.wants_diff and not hidden:
            event.update(self.diff(data))
        if hidden and task.action.rpartition(".")[2] == "set_stats":
            given = task.args.get("data")
            self.hidden_stats.update(given if isinstance(given, dict) else ["*"])
        if self.reboots and status == "changed" and task.notify:
            self.reboots.pending.add(task.get_name().strip())
        self.write("result", **event)

    def cause(self, result, fields, message):
        """The file that a failure is about, when that is another place than the task's own."""
        task, source = result._task, excerpt(result)
        own = ("Origin: %s:" % task.get_path(), "Origin: %s\n" % task.get_path())
        if source and not (source + "\n").startswith(own) and source not in message:
            return "\n" + source
        args, kind = fields.get("args") or {}, task.action.rpartition(".")[2]
        file = {"template": args.get("src"), "include_vars": args.get("file") or args.get("_raw_params")}.get(kind)
        return "\nin %s" % text_of(file) if file and text_of(file) not in message else ""

    def diff(self, data):
        """What changed, as text, of a result and of its items; how much was left out."""
        parts = [self._get_diff(data["diff"])] if data.get("diff") else []
        for item in data.get("results") or []:
            if isinstance(item, dict) and item.get("diff") and "censored" not in item:
                parts.append(self._get_diff(item["diff"]))
        # Masked before it is cut, or half of a value could remain.
        text = self.short(self.masked("".join(part for part in parts if part).strip("\n")))
        # Of content that is not a file's, older versions name the file that Ansible put it into.
        text = re.sub(r"(?m)^(--- before|\+\+\+ after): .*/ansible-local-.*$", r"\1", text)
        if not text:
            return {}
        return {"diff": text[:DIFF_LIMIT], "diff_cut": max(len(text) - DIFF_LIMIT, 0)}

    def v2_runner_on_ok(self, result):
        self.result(result, "changed" if result._result.get("changed") else "ok", False)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if ignore_errors:
            status = "ignored"
        else:
            status = "rescued" if has_rescue(result._task) else "failed"
        self.result(result, status, True)

    def v2_runner_on_skipped(self, result):
        self.result(result, "skipped", False)

    def v2_runner_on_unreachable(self, result):
        self.result(result, "unreachable", True)

    def v2_playbook_on_no_hosts_matched(self):
        self.write("no-hosts")

    def v2_playbook_on_stats(self, stats):
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        found, left_out = self.custom_stats(stats.custom)
        found, left_out = ({host: self.masked(one) for host, one in by_host.items()} for by_host in (found, left_out))
        self.write("stats", hosts=hosts, custom=found, left_out=left_out)

    def custom_stats(self, custom):
        """What `set_stats` gave, of this run and of each host, without the values of tasks with no_log; and the lengths of
        the values for which there is no room."""
        found, left_out, room = {}, {}, CUSTOM_LIMIT
        for host, values in custom.items():
            for name, value in values.items():
                if "*" in self.hidden_stats or name in self.hidden_stats:
                    value = CENSORED
                size = len(json.dumps({name: value}, default=str, ensure_ascii=False))
                if size > room:
                    left_out.setdefault(host, {})[name] = size
                else:
                    found.setdefault(host, {})[name] = value
                    room -= size
        return found, left_out
