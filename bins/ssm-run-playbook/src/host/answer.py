# What goes back from a host: the recap's one line, figures from the events, and packed texts.
import base64
import hashlib
import json
import os
import re
import zlib

MARKER = "ssm-run-playbook/1 "
LOG_CHARS = 1 << 20  # packed; a slice of 23,000 takes a command of its own
LOG_BYTES = 8 << 20
RECAP_LIMIT = 1500  # ListCommandInvocations keeps the first 2,500 characters of an output.
FIGURES = ("ok", "changed", "failures", "skipped", "unreachable", "rescued", "ignored")


def fit(recap):
    """The recap's line, cut down to RECAP_LIMIT by giving up the least important first."""
    def line():
        return MARKER + json.dumps(recap, separators=(",", ":"))

    for key in ("slowest", "error", "failure", "last"):
        while len(line()) > RECAP_LIMIT and recap.get(key):
            value = recap[key]
            if key == "slowest":
                value.pop()
            elif key in ("error", "last"):
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
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: with gzip's head, which then holds no time
    text = base64.b64encode(packer.compress(data) + packer.flush())
    with open(path, "wb") as file:
        file.write(text)
    return [len(text), hashlib.sha256(text).hexdigest()]


def pack_log(path, log):
    """As `pack`, of a file; one that would take minutes to fetch loses its middle. All of it stays on the host."""
    packed = pack(path, shortened(log, LOG_BYTES))
    if packed[0] > LOG_CHARS:
        packed = pack(path, shortened(log, min(os.path.getsize(log), LOG_BYTES) * LOG_CHARS // packed[0]))
    return packed


def shortened(path, most):
    """What a file holds, without its middle when that is more than `most` bytes."""
    half, size = most // 2, os.path.getsize(path)
    with open(path, "rb") as file:
        if size <= 2 * half:
            return file.read()
        head = file.read(half)
        file.seek(size - half)
        note = "\n[%d bytes are left out here; the host has all of them in %s]\n" % (size - 2 * half, path)
        return head + note.encode() + file.read()


def keep_log(raw, kept, folder, masks):
    """Adds Ansible's log to the one that is kept: without what must not be shown, and files without the run's folder."""
    with open(raw, "rb") as source, open(kept, "ab") as target:
        # Line by line, since it may be long; of a text of several lines each is among the masks.
        for line in source:
            target.write(masked(line.replace(folder.encode(), b""), masks))


def masked(data, masks):
    """Bytes without any of the texts that must not be shown."""
    for text in masks:
        data = data.replace(text.encode("utf-8", "surrogateescape"), b"***")
    return data


def error_in(log):
    """What Ansible says of an end that is not of a task."""
    text = log.decode("utf-8", "replace")
    # Of a misspelt module Ansible names a hundred others, in any order, before it comes to the place.
    text = re.sub(r"(?s), which is only allowed in the following modules: .*?(?=\n\n|\nOrigin:|$)", ", which few modules take; is its name right?", text)
    starts = [at for at in (text.find("ERROR!"), text.find("[ERROR]")) if at >= 0]
    return (text[min(starts):] if starts else text[-900:]).strip()[:900]


def events_in(lines):
    """Events, one a line. A line that a kill or a full disk has cut is none, and hides no other."""
    for line in lines.splitlines():
        try:
            yield json.loads(line.decode())
        except ValueError:
            pass


class Figures:
    """What the events of a run say, over all of its reboots."""

    def __init__(self, lines, host):
        self.failures, self.timed, self.last, self.custom = [], [], None, False
        self.open = False  # whether the last task has no result
        self.ended = False  # whether Ansible came to its own recap after the last reboot
        self.earlier = dict.fromkeys(FIGURES, 0)  # before the last reboot, where Ansible gave no recap
        self.since = dict.fromkeys(FIGURES, 0)
        for event in events_in(lines):
            kind = event["e"]
            if kind == "resumed":
                for name in FIGURES:
                    self.earlier[name] += self.since[name]
                self.since, self.ended = dict.fromkeys(FIGURES, 0), False
            elif kind == "stats":
                figures = event["hosts"].get(host, {})
                self.since, self.ended = {name: figures.get(name, 0) for name in FIGURES}, True
                self.custom = bool(event.get("custom") or event.get("left_out"))
            elif kind == "task":
                self.last, self.open = event["name"], True
            elif kind == "result":
                self.open = False
                self.timed.append((event["ms"], event["task"]))
                self.count(event["status"])
                if event["status"] in ("failed", "unreachable"):
                    self.failures.append(event)

    def count(self, status):
        for name in {"changed": ("ok", "changed"), "failed": ("failures",), "ignored": ("ok", "ignored")}.get(
            status, (status,)
        ):
            self.since[name] += 1

    def stats(self):
        return {name: self.earlier[name] + self.since[name] for name in FIGURES}


def summarise(recap, host, lines, log):
    """Adds figures, the first failure, the slowest tasks."""
    figures = Figures(lines, host)
    # Only Ansible's own recap is a whole one.
    recap["stats" if figures.ended else "so_far"] = figures.stats()
    recap["tasks"] = len(figures.timed)
    recap["last"] = figures.last
    if figures.failures:
        first = figures.failures[0]
        recap["failures"] = len(figures.failures)
        recap["failure"] = {key: first.get(key) for key in ("task", "file", "line", "module", "message")}
    figures.timed.sort(reverse=True)
    recap["slowest"] = [[name[:80], ms] for ms, name in figures.timed[:3] if ms >= 100]
    recap["custom"] = figures.custom
    if not figures.ended and recap["state"] == "done":
        recap["open"] = figures.open
        recap["error"] = error_in(shortened(log, LOG_BYTES))
