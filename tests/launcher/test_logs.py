"""The logs of a run: lines that stay, locks, and the way back to a checkpoint."""

import errno
import fcntl
import json
import math
import os
import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from launcher.logs import FIGURES, METRICS, RESUMES, Logs, is_open


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
        with pytest.raises(OSError, match="File too large") as caught:
            logs.append(METRICS, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    logs.append(METRICS, {"step": 3})
    assert caught.value.filename == str(tmp_path / METRICS)
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
    again.append(RESUMES, {"step": 1})
    assert again.go_back({**then, RESUMES: 0}, 1) == []
    again.append(METRICS, {"step": 2})
    again.close()
    assert lines(tmp_path / METRICS) == [{"step": 1}, {"step": 2}]
    assert lines(tmp_path / FIGURES) == []
    assert (tmp_path / "notes.jsonl").read_text() == "{}\n"
    assert lines(tmp_path / RESUMES) == [{"step": 1}]  # it was continued, whatever came of it


def of_another_course(logs, tmp_path):
    """What a checkpoint of step 4 noted, and a log that does not fit."""
    for step in range(1, 5):
        logs.append(METRICS, {"step": step, "loss": 0.5})
    noted = logs.sizes()
    logs.close()
    (tmp_path / METRICS).write_text(
        "".join(f'{{"step": {step}, "loss": 0.123456789}}\n' for step in range(1, 10))
    )
    return noted


def test_a_log_that_is_not_what_it_was_is_cut_between_lines(logs, tmp_path):
    noted = of_another_course(logs, tmp_path)
    again = Logs(tmp_path)
    (said,) = again.go_back(noted, 4)
    assert "only its whole lines up to step 4, of 9 lines, are kept" in said
    again.append(METRICS, {"step": 5})
    again.close()
    assert [line["step"] for line in lines(tmp_path / METRICS)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("damage", ["", '{"step": 2', "hello\n", '{"loss": 1.0}\n'])
def test_lines_that_are_missing_are_not_made_up(logs, tmp_path, damage):
    logs.append(METRICS, {"step": 1})
    (tmp_path / METRICS).write_text('{"step": 1}\n' + damage)
    (said,) = logs.go_back({METRICS: 1000}, 80)
    assert "is not what it was when the checkpoint was written" in said
    assert lines(tmp_path / METRICS) == [{"step": 1}]
    assert logs.sizes() == {METRICS: 12}


def test_another_folder_begins_with_a_copy(logs, tmp_path):
    logs.append(METRICS, {"step": 1})
    then = logs.sizes() | {FIGURES: 10}  # which somebody has removed
    logs.append(METRICS, {"step": 2})
    (tmp_path / "second").mkdir()
    second = Logs(tmp_path / "second")
    (said,) = second.copy(tmp_path, then, 1)
    assert str(tmp_path / FIGURES) in said
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
    assert is_open(tmp_path / "another.jsonl") is False
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


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks(logs, tmp_path, monkeypatch, number):
    def no_locks(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    logs.append(METRICS, {"step": 1})
    assert lines(tmp_path / METRICS) == [{"step": 1}]
    assert is_open(tmp_path / METRICS) is None


def test_who_only_looks_keeps_nobody_from_going_on(logs, tmp_path, monkeypatch):
    """`is_open` holds the lock for a moment."""
    looks, flock = iter(range(2)), fcntl.flock

    def looked_at(file, how):
        if next(looks, None) is not None:
            raise BlockingIOError
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", looked_at)
    logs.append(METRICS, {"step": 1})
    assert lines(tmp_path / METRICS) == [{"step": 1}]


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
