"""The plugin behind `release.py`: notes how much memory a process of the run holds, and when.

Appends lines of JSON to the file that the environment variable `FILE` names: process, moment,
resident bytes then, and at most until then.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path

from hooks import hookimpl

FILE = "RELEASE_BENCHMARK_FILE"


def note(moment: str) -> None:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    now, most = (int(values[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    with open(os.environ[FILE], "a", encoding="utf-8") as file:
        file.write(json.dumps(dict(process=os.getpid(), moment=moment, now=now, most=most)) + "\n")


if FILE in os.environ:  # not where `release.py` imports this
    atexit.register(note, "end")


@hookimpl(wrapper=True)
def plan_encodings():
    note("imported")  # and all parts built, without values
    return (yield)


@hookimpl(wrapper=True)
def precompute():
    cache = yield
    note("encoded")
    return cache


@hookimpl(wrapper=True)
def build_collate_fn():
    note("released")  # and the networks loaded
    return (yield)


@hookimpl
def on_train_start():
    note("compiled")


@hookimpl
def on_step_end(state):
    note(f"step {state.step}")
