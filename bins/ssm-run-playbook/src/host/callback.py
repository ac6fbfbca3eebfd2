# Runs on the host, inside ansible-playbook: writes one JSON line per event, for ansible-core 2.14 to 2.19 and later.
# Nothing of a result but its status and its message is written, and no message of a task with no_log.
from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: ssm_run_playbook
type: notification
short_description: one JSON line per event
description: Writes plays, tasks, results and the final recap to the file named by SSM_RUN_PLAYBOOK_EVENTS.
"""

MESSAGE_LIMIT = 2000
CENSORED = "hidden because of no_log"


def text_of(value):
    return value if isinstance(value, str) else json.dumps(value, default=str)


def message_of(result, hidden):
    """What a person needs to read of a failed or skipped result, and nothing of a censored one."""
    if hidden or "censored" in result:
        return CENSORED
    parts = [text_of(result["msg"])] if result.get("msg") else []
    failed_items = [
        item for item in result.get("results") or [] if isinstance(item, dict) and item.get("failed")
    ]
    for item in failed_items[:5]:
        label = text_of(item.get("_ansible_item_label", item.get("item", "")))
        parts.append("item %s: %s" % (label[:200], message_of(item, False)))
    for key in ("module_stderr", "stderr"):
        if result.get(key):
            parts.append("%s: %s" % (key, text_of(result[key]).strip()[-800:]))
            break
    else:
        if result.get("rc") and result.get("stdout"):
            parts.append("stdout: %s" % text_of(result["stdout"]).strip()[-800:])
    if not parts and result.get("skip_reason"):
        parts.append(text_of(result["skip_reason"]))
    return "\n".join(parts)[:MESSAGE_LIMIT]


def has_rescue(task):
    """Whether a failure of this task is caught by a rescue section around it."""
    child, parent = task, getattr(task, "_parent", None)
    while parent is not None:
        inside = [getattr(one, "_uuid", None) for one in getattr(parent, "block", None) or []]
        if getattr(parent, "rescue", None) and getattr(child, "_uuid", None) in inside:
            return True
        child, parent = parent, getattr(parent, "_parent", None)
    return False


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "ssm_run_playbook"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        environ = os.environ
        self.root = environ.get("SSM_RUN_PLAYBOOK_ROOT", "")
        self.stop = environ.get("SSM_RUN_PLAYBOOK_STOP", "")
        path = environ.get("SSM_RUN_PLAYBOOK_EVENTS", os.devnull)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.file = os.fdopen(descriptor, "w", encoding="utf-8")
        self.started = {}

    def write(self, kind, **fields):
        line = json.dumps({"e": kind, **fields}, separators=(",", ":"), default=str)
        self.file.write(line + "\n")
        self.file.flush()

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
        self.write("play", name=play.get_name().strip())

    def v2_playbook_on_task_start(self, task, is_conditional):
        # A run that must end does so between two tasks, when there is time for that.
        if self.stop and os.path.exists(self.stop):
            self.write("stopped")
            raise KeyboardInterrupt
        file, line = self.where(task)
        self.write("task", name=task.get_name().strip(), module=self.module(task), file=file, line=line)

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_cleanup_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host, task):
        self.started[(host.get_name(), task._uuid)] = time.monotonic()

    def result(self, result, status, with_message):
        task, host = result._task, result._host.get_name()
        fields = getattr(result, "_task_fields", None) or {}
        data = result._result
        began = self.started.pop((host, task._uuid), None)
        elapsed = 0 if began is None else int((time.monotonic() - began) * 1000)
        file, line = self.where(task)
        event = {
            "host": host,
            "status": status,
            "task": task.get_name().strip(),
            "module": self.module(task),
            "file": file,
            "line": line,
            "ms": elapsed,
        }
        if with_message:
            event["message"] = message_of(data, fields.get("no_log") is True)
        self.write("result", **event)

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
        self.write("stats", hosts=hosts)
