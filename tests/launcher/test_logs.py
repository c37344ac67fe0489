"""The logs of a run: lines that stay, locks, and the way back to a checkpoint."""

import errno
import fcntl
import json
import math
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from launcher.logs import FIGURES, METRICS, Logs, is_open
from launcher.training.errors import UserError


@pytest.fixture
def logs(tmp_path):
    logs = Logs(tmp_path)
    yield logs
    logs.close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_a_record_with_null_for_what_is_not_finite(logs, tmp_path):
    logs.append(METRICS, {"step": 1, "loss": math.nan, "scale": np.float32("inf")})
    logs.append(METRICS, {"step": 2, "loss": np.float64(0.5), "changed": {"a": [1, 2]}})
    assert lines(tmp_path / METRICS) == [
        {"step": 1, "loss": None, "scale": None},
        {"step": 2, "loss": 0.5, "changed": {"a": [1, 2]}},
    ]
    assert logs.sizes() == {METRICS: (tmp_path / METRICS).stat().st_size}


def test_a_disk_that_gets_full_within_a_line(logs, tmp_path):
    logs.append(METRICS, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (17, limits[1]))  # room for 5 bytes
    try:
        with pytest.raises(OSError, match="File too large"):
            logs.append(METRICS, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    logs.append(METRICS, {"step": 3})
    assert lines(tmp_path / METRICS) == [{"step": 1}, {"step": 3}]
    assert logs.sizes() == {METRICS: (tmp_path / METRICS).stat().st_size}


def test_the_way_back_to_a_checkpoint(logs, tmp_path):
    logs.append(METRICS, {"step": 1})
    then = logs.sizes()
    logs.append(METRICS, {"step": 2})
    logs.append(FIGURES, {"step": 2})  # begun after the checkpoint
    (tmp_path / "notes.jsonl").write_text("{}\n")  # nobody's business
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"step": 3, "lo')  # killed while it wrote
    logs.close()

    again = Logs(tmp_path)
    again.go_back(then)
    again.append(METRICS, {"step": 2})
    again.close()
    assert lines(tmp_path / METRICS) == [{"step": 1}, {"step": 2}]
    assert lines(tmp_path / FIGURES) == []
    assert (tmp_path / "notes.jsonl").read_text() == "{}\n"


def test_lines_that_are_missing_are_not_made_up(logs, tmp_path):
    logs.append(METRICS, {"step": 1})
    with pytest.raises(UserError, match="has 12 bytes, and had 1000 when the checkpoint was"):
        logs.go_back({METRICS: 1000})


def test_another_folder_begins_with_a_copy(logs, tmp_path):
    logs.append(METRICS, {"step": 1})
    then = logs.sizes() | {FIGURES: 10}  # which somebody has removed
    logs.append(METRICS, {"step": 2})
    (tmp_path / "second").mkdir()
    second = Logs(tmp_path / "second")
    second.copy(tmp_path, then)
    second.append(METRICS, {"step": 20})
    second.close()
    assert lines(tmp_path / "second" / METRICS) == [{"step": 1}, {"step": 20}]


def test_a_second_process_is_refused(logs, tmp_path):
    logs.append(METRICS, {"step": 1})
    program = f"""
        from pathlib import Path
        from launcher.logs import Logs
        from launcher.training.errors import UserError
        try:
            Logs(Path({str(tmp_path)!r})).reopen("metrics.jsonl")
        except UserError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"the run in {tmp_path} is still going on" in refused
    logs.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_whether_a_run_goes_on(logs, tmp_path):
    log = logs.create("metrics.jsonl")
    before = log.stat()
    assert is_open(log) is True
    assert is_open(log) is True
    logs.append("metrics.jsonl", {"step": 1})
    code = (
        "import sys; from pathlib import Path; from launcher.logs import is_open; "
        "print(is_open(Path(sys.argv[1])))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=True
    )
    assert seen.stdout == "True\n"
    logs.close()
    assert is_open(log) is False
    assert log.stat().st_ino == before.st_ino and log.read_bytes() == b'{"step": 1}\n'
    # It is given back: a run can go on at once.
    Logs(tmp_path).reopen("metrics.jsonl")


def test_a_file_system_without_locks(logs, monkeypatch):
    log = logs.create("metrics.jsonl")

    def no_locks(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert is_open(log) is None


def test_files_that_are_removed_moved_or_replaced_are_missed(logs, tmp_path):
    assert logs.are_in_place()
    logs.append(METRICS, {"step": 1})
    assert logs.are_in_place()
    (tmp_path / METRICS).rename(tmp_path / "moved")
    assert not logs.are_in_place()
    (tmp_path / METRICS).write_text("{}\n")  # another one of that name
    assert not logs.are_in_place()


def test_processes_but_the_main_one_write_nothing(tmp_path):
    logs = Logs(tmp_path, is_main=False)
    logs.append(METRICS, {"step": 1})
    assert list(tmp_path.iterdir()) == []
