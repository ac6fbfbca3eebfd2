"""The AWS CLI as a process that stays: `aws` itself takes a second to start, and a test makes hundreds of calls.

A line on stdin is a call, `{"args": [...], "env": {...}}`; a line on stdout is how it ended,
`{"status": 0, "stdout": "...", "stderr": "...", "answers": [...]}`. Each call gets a driver of its own, as each `aws`
does. What was answered is compared with the service's model (`conformance/shapes.py`).
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "conformance"))

import shapes
from awscli.clidriver import create_clidriver


def text_file():
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def call(args, env):
    stdout, stderr = text_file(), text_file()
    answers = []
    before = dict(os.environ)
    os.environ.update(env)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                driver = create_clidriver()
                shapes.watch(driver.session, answers)
                status = driver.main(args)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
    finally:
        os.environ.clear()
        os.environ.update(before)
    said = [file.buffer.getvalue().decode("utf-8", "replace") for file in (stdout, stderr)]
    return {"status": status or 0, "stdout": said[0], "stderr": said[1], "answers": answers}


for line in sys.stdin:
    wanted = json.loads(line)
    json.dump(call(wanted["args"], wanted["env"]), sys.stdout, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()
