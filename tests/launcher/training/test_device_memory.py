"""Memory that does not suffice: MindSpore's own error, and what is no such error."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.training import device_memory
from launcher.training.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
# As MindSpore 2.10 writes it.
MESSAGE = """
----------------------------------------------------
- Memory not enough:
----------------------------------------------------
Device(id:0) memory isn't enough and alloc failed, kernel name: Default/Tile-op1, alloc size: 17B.

----------------------------------------------------
- C++ Call Stack: (For framework developers)
----------------------------------------------------
graph_scheduler.cc:1168 Run
"""


def test_what_mindspore_raises_becomes_a_paragraph_and_it_goes_on_working():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("exhausting.py")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"there is not enough memory for seventeen gigabytes: [^:\n]*emory isn't enough and alloc "
        r"failed, kernel name: \S+, alloc size: 17179869184B\. Want less\.\n",
        done.stdout,
    )


def test_its_headings_are_left_out():
    with (
        pytest.raises(UserError, match=r"for x: Device\(id:0\) memory .* alloc size: 17B\. Y\.$"),
        device_memory.needed_for("x", "Y."),
    ):
        raise RuntimeError(MESSAGE)


@pytest.mark.parametrize(
    "text", ["Allocate memory failed", "#umsg#Memory not enough:#umsg#", "Malloc memory failed: 3"]
)
def test_other_words_for_it(text):
    assert device_memory.is_exhausted(RuntimeError(text))
    assert not device_memory.is_exhausted(ValueError(text))


def test_host_memory_counts():
    assert device_memory.is_exhausted(MemoryError())
    with (
        pytest.raises(UserError, match=r"^there is not enough memory for x\. Y\.$"),
        device_memory.needed_for("x", "Y."),
    ):
        raise MemoryError


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), device_memory.needed_for("x", "y"):
        raise RuntimeError("the shapes differ")
