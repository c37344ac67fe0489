"""Checkpoints while the steps go on: when, of what moment, and what becomes of errors."""

import inspect
import json
import os
import shutil
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from hooks.types import Models
from launcher.checkpointing import Contents, Saver, resume_command
from launcher.rundir import FolderGoneError, RunDir
from launcher.training import checkpoint
from launcher.training.errors import UserError


class Value:
    """A parameter, as far as the Saver looks at one."""

    def __init__(self, *numbers):
        self.array = np.array(numbers, np.float32)

    def asnumpy(self):
        return self.array


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Exporter:
    """Stands for the hook `export_weights`; holds the writing thread while `gate` is closed."""

    def __init__(self, weight, error=None):
        self.gate = threading.Event()
        self.gate.set()
        self.weight = weight
        self.error = error

    def __call__(self, models, directory, values):
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        (directory / "exported").write_bytes(values(self.weight).tobytes())


@pytest.fixture
def weight():
    return Value(1, 2, 3)


@pytest.fixture
def average():
    return Value(7, 8, 9)


@pytest.fixture
def state():
    return SimpleNamespace(step=0, epoch=0, memory={})


@pytest.fixture
def exporter(weight):
    return Exporter(weight)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run_dir(tmp_path):
    with RunDir.claim(tmp_path / "run", "a: 1") as run_dir:
        run_dir.append("metrics.jsonl", {"step": 1})
        yield run_dir


@pytest.fixture
def saved():
    return []


@pytest.fixture
def said():
    return []


@pytest.fixture
def new_saver(run_dir, weight, average, exporter, clock, saved, said):
    def make(start=0, steps=None, minutes=None, limit=None):
        options = SimpleNamespace(
            checkpointing_steps=steps, every_minutes=minutes, checkpoints_total_limit=limit
        )
        tensors = {"weights.net.w": weight, "ema.net.w": average}
        contents = Contents(tensors, Models(), {id(weight): average})
        about = {"recipe": "fence"}
        return Saver(
            options,
            run_dir,
            contents,
            exporter,
            about,
            "a: 1\n",
            start,
            saved.append,
            said.append,
            clock,
        )

    return make


def test_due_by_steps_counted_from_the_first_of_the_run(new_saver, state):
    saver = new_saver(start=7, steps=5)
    assert [step for step in range(7, 16) if saver.is_due(step)] == [10, 11, 12, 13, 14, 15]
    with saver:
        state.step = 12  # late: the one of step 10 could not be taken
        saver.take(state, {})
        assert not saver.is_due(14)
        assert saver.is_due(15)


def test_due_by_minutes_of_a_clock_that_never_goes_back(new_saver, state, clock):
    saver = new_saver(minutes=2)
    clock.now += 119
    assert not saver.is_due(3)
    clock.now += 1
    assert saver.is_due(3)
    with saver:
        state.step = 3
        saver.take(state, {})
        assert not saver.is_due(4)
        clock.now += 120
        assert saver.is_due(4)
        assert not saver.is_due(3)  # nothing has happened since


def test_the_clock_is_not_the_wall_clock():
    """That may be set back while a run goes on, and then no checkpoint would be due for hours."""
    assert inspect.signature(Saver).parameters["clock"].default is time.monotonic


def test_a_state_that_is_only_held_puts_no_checkpoint_off(new_saver, state):
    with new_saver(steps=5) as saver:
        state.step = 6
        saver.hold(state, {})  # a graph is compiled, and the one of step 5 is still to be taken
        assert saver.is_due(6)
        saver.take(state, {})
        assert not saver.is_due(7)


def test_what_is_written_is_what_was_there_when_it_was_taken(
    new_saver, state, weight, average, exporter, run_dir, saved
):
    exporter.gate.clear()
    with new_saver() as saver:
        state.step, state.epoch, state.memory = 4, 1, {"mine": [1, 2]}
        saver.take(state, {"metrics.jsonl": 12})
        weight.array += 100  # the steps go on
        average.array += 100
        state.step, state.memory["mine"] = 5, []
        assert not saver.is_free
        assert saved == []
        exporter.gate.set()
    path = run_dir.path / "checkpoint-4"
    found = checkpoint.read(path)
    assert found.about == {
        "recipe": "fence",
        "epoch": 1,
        "logs": {"metrics.jsonl": 12},
        "owes_validation": False,
        "memory": {"mine": [1, 2]},
    }
    expected = {name: checkpoint.info_of(weight.array) for name in ("weights.net.w", "ema.net.w")}
    tensors = dict(checkpoint.load(found, expected))
    np.testing.assert_array_equal(tensors["weights.net.w"], [1, 2, 3])
    np.testing.assert_array_equal(tensors["ema.net.w"], [7, 8, 9])
    for name, array in (("exported", [1, 2, 3]), ("ema/exported", [7, 8, 9])):
        assert (path / name).read_bytes() == np.array(array, np.float32).tobytes()
    assert (path / "config.yaml").read_text() == "a: 1\n"


def test_one_is_written_at_a_time(new_saver, state, exporter, run_dir, saved):
    exporter.gate.clear()
    with new_saver(steps=1) as saver:
        state.step = 1
        saver.take(state, {})
        state.step = 2
        assert saver.is_due(2) and not saver.is_free
        opened = threading.Timer(0.1, exporter.gate.set)
        opened.start()
        saver.take(state, {})  # waits for the first
        assert saved == [run_dir.path / "checkpoint-1"]
        saver.wait()
    assert [path.name for path in saved] == ["checkpoint-1", "checkpoint-2"]
    opened.join()


def test_the_oldest_goes_when_the_newest_is_complete(new_saver, state, exporter, run_dir):
    with new_saver(limit=2) as saver:
        for state.step in (1, 2):
            saver.save(state, {})
        exporter.gate.clear()
        state.step = 3
        saver.take(state, {})
        assert checkpoint.steps_in(run_dir.path) == [1, 2]
        exporter.gate.set()
    assert checkpoint.steps_in(run_dir.path) == [2, 3]


def test_an_old_one_that_cannot_be_removed_ends_no_run(
    new_saver, state, run_dir, saved, said, monkeypatch
):
    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    with new_saver(limit=1) as saver:
        state.step = 1
        saver.save(state, {})
        monkeypatch.setattr("launcher.training.checkpoint._remove", fail)
        state.step = 2
        assert saver.save(state, {}) == run_dir.path / "checkpoint-2"
    assert len(saved) == 2
    (line,) = said
    assert line.startswith("warning: a checkpoint beyond checkpoint.checkpoints_total_limit stays")


def test_the_logs_are_on_the_disk_before_a_checkpoint_that_counts_on_them(
    new_saver, state, run_dir, monkeypatch
):
    order = []
    sync, write = run_dir.logs.sync, checkpoint.write
    monkeypatch.setattr(run_dir.logs, "sync", lambda: order.append("logs") or sync())
    monkeypatch.setattr(
        checkpoint, "write", lambda *arguments: order.append("checkpoint") or write(*arguments)
    )
    with new_saver() as saver:
        state.step = 1
        saver.save(state, {})
    assert order == ["logs", "checkpoint"]


def test_a_validation_that_is_owed_is_noted(new_saver, state, run_dir):
    with new_saver() as saver:
        state.step = 1
        path = saver.save(state, {}, owes_validation=True)
    assert checkpoint.read(path).about["owes_validation"] is True


def test_a_state_that_is_saved_is_not_saved_again(new_saver, state, saved):
    with new_saver() as saver:
        state.step = 3
        saver.take(state, {})
        path = saver.save(state, {})
    assert saved == [path]


def test_a_state_is_saved_at_once_where_none_was_taken(new_saver, state, run_dir, saved):
    with new_saver() as saver:
        state.step = 3
        assert saver.save(state, {}) == run_dir.path / "checkpoint-3"
        assert saved == [run_dir.path / "checkpoint-3"]


def test_what_is_held_is_written_when_asked_for(new_saver, state, weight, run_dir, saved):
    with new_saver() as saver:
        assert saver.write_held() is None
        state.step = 2
        saver.hold(state, {})
        assert checkpoint.steps_in(run_dir.path) == []
        assert saver.write_held() == run_dir.path / "checkpoint-2"
    assert saved == []  # observers may use MindSpore, and its compiler is at work


def test_what_a_plugin_keeps_must_be_something_that_json_can_hold(new_saver, state):
    state.step, state.memory = 1, {"array": np.zeros(2)}
    with new_saver() as saver, pytest.raises(TypeError, match="ndarray"):
        saver.take(state, {})


def test_an_export_that_fails_is_a_bug_and_keeps_its_traceback(new_saver, state, exporter, run_dir):
    exporter.error = KeyError("scale")
    with new_saver() as saver:
        state.step = 1
        saver.take(state, {})
        with pytest.raises(KeyError) as caught:
            saver.wait()
    assert any(entry.name == "__call__" for entry in caught.traceback)
    assert list(run_dir.path.glob("*checkpoint*")) == []


def test_a_disk_that_is_full(new_saver, state, exporter, run_dir):
    with new_saver() as saver:
        state.step = 1
        saver.save(state, {})
        exporter.error = OSError(28, "No space left on device")
        state.step = 2
        saver.take(state, {})
        with pytest.raises(UserError) as caught:
            saver.wait()
        saver.wait()  # said once
    text = str(caught.value)
    assert "checkpoint-2 could not be written: No space left on device" in text
    assert "The last one is checkpoint-1" in text
    assert "checkpoints_total_limit" in text and "launcher --resume" in text
    assert checkpoint.read(run_dir.path / "checkpoint-1").step == 1


def test_a_real_disk_that_is_full(new_saver, small_disk, state, weight, exporter, saved):
    folder = small_disk(3 << 20)
    with RunDir.claim(folder / "run", "a: 1") as run_dir:
        weight.array = np.zeros(250_000, np.float32)  # 1 MB, in a file of its own and exported
        options = SimpleNamespace(
            checkpointing_steps=1, every_minutes=None, checkpoints_total_limit=None
        )
        contents = Contents({"weights.net.w": weight}, Models(), {})
        with Saver(
            options, run_dir, contents, exporter, {}, "a: 1\n", 0, saved.append, print
        ) as saver:
            state.step = 1
            saver.save(state, {})
            state.step = 2
            saver.take(state, {})
            with pytest.raises(UserError, match="No space left on device"):
                saver.wait()
        assert checkpoint.read(run_dir.path / "checkpoint-1").step == 1
        assert [path.name for path in run_dir.path.glob("*checkpoint*")] == ["checkpoint-1"]


def test_a_folder_that_was_removed(new_saver, state, run_dir, weight):
    with new_saver() as saver:
        shutil.rmtree(run_dir.path)
        state.step = 1
        saver.take(state, {})
        with pytest.raises(FolderGoneError):
            saver.wait()
        run_dir.make_anew("a: 1")
        path = saver.save_anew(state)
    assert checkpoint.read(path).step == 1


def test_the_command_that_resumes_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resume_command(tmp_path / "runs" / "my run") == "launcher --resume 'runs/my run'"


def test_the_writing_thread_gives_way_to_the_steps(new_saver, state, exporter):
    seen = []
    exporter.weight = Value(0)
    call = exporter.__call__

    def export(**arguments):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        call(**arguments)

    saver = new_saver()
    saver._export = partial(export)
    with saver:
        state.step = 1
        saver.save(state, {})
    assert seen[0] == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19


def test_the_manifest_counts_every_file(new_saver, state, run_dir):
    with new_saver() as saver:
        state.step = 1
        path = saver.save(state, {})
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    assert set(manifest["files"]) == {
        "state.safetensors",
        "config.yaml",
        "exported",
        "ema/exported",
    }
    assert all(manifest["files"][name]["size"] for name in manifest["files"])


def test_the_writing_thread_rests_until_somebody_waits_for_it(monkeypatch):
    from launcher import checkpointing

    monkeypatch.setattr(checkpointing, "_REST", 1e9)
    pace = checkpointing.Pace()

    def begin():
        pace.start()
        thread = threading.Thread(target=pace.rest, daemon=True)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        return thread

    resting = begin()
    pace.hurry()
    resting.join(10)
    assert not resting.is_alive()
    pace.rest()  # no more of it
    begin()
    pace.hurry()
