"""Checkpoints on disk: whole or not there, and checked before they are used."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from launcher.training import checkpoint
from launcher.training.checkpoint import DamagedError
from launcher.training.errors import UserError
from launcher.training.safetensors_files import TensorInfo

TENSORS = {
    "weights.a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "weights.half": np.array([1.5, -2], ml_dtypes.bfloat16),
    "optimizer.step": np.array([7], np.int32),
    "optimizer.scale": np.array(65536.0, np.float32),
}
INFOS = {
    "weights.a": TensorInfo("F32", (2, 3)),
    "weights.half": TensorInfo("BF16", (2,)),
    "optimizer.step": TensorInfo("I32", (1,)),
    "optimizer.scale": TensorInfo("F32", ()),
}


def write(folder, step=5, **about):
    return checkpoint.write(
        folder, step, TENSORS, about, lambda work: (work / "config.yaml").write_text("a: 1\n")
    )


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path, epoch=2)
    assert path == tmp_path / "checkpoint-5"
    assert (path / "config.yaml").read_text() == "a: 1\n"
    found = checkpoint.read(path)
    assert (found.step, found.about) == (5, {"epoch": 2})
    tensors = dict(checkpoint.load(found, INFOS))
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_one_of_the_same_step_is_replaced(tmp_path):
    write(tmp_path, epoch=1)
    assert checkpoint.read(write(tmp_path, epoch=2)).about == {"epoch": 2}


def test_tensors_that_are_not_what_the_run_needs_are_listed(tmp_path):
    found = checkpoint.read(write(tmp_path))
    expected = dict(INFOS)
    del expected["optimizer.step"]
    expected |= {"weights.b": TensorInfo("F32", (1,)), "weights.a": TensorInfo("F32", (3, 2))}
    with pytest.raises(UserError) as error:
        checkpoint.load(found, expected)
    assert "1 of 4 tensors are missing (weights.b)" in str(error.value)
    assert "are in it that this run has not (optimizer.step)" in str(error.value)
    assert "weights.a is F32 [2, 3], not F32 [3, 2]" in str(error.value)


# Damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": (lambda p: os.truncate(p / "state.safetensors", 40), "has 40 bytes, and was writ"),
    "missing": (lambda p: (p / "config.yaml").unlink(), "config.yaml is missing"),
    "flipped": (lambda p: flip(p / "state.safetensors"), "its checksum differs"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "manifest.json is missing"),
    "other manifest": (lambda p: flip(p / "manifest.json"), "does not hold what was written"),
    "half a manifest": (
        lambda p: os.truncate(p / "manifest.json", 50),
        "does not hold what was written",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_one_before_is_taken(tmp_path, kind):
    write(tmp_path, 5)
    damage, words = DAMAGE[kind]
    damage(write(tmp_path, 10))
    with pytest.raises(DamagedError, match=words):
        checkpoint.read(tmp_path / "checkpoint-10")
    said = []
    assert checkpoint.newest(tmp_path, said.append).step == 5
    (sentence,) = said
    assert words in sentence and "Going on from checkpoint-5" in sentence


def test_where_all_are_damaged_each_is_told_of(tmp_path):
    for step in (5, 10):
        flip(write(tmp_path, step) / "state.safetensors")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged") as error:
        checkpoint.newest(tmp_path, pytest.fail)
    assert "checkpoint-5" in str(error.value) and "checkpoint-10" in str(error.value)


@pytest.fixture
def open_folder():
    """One that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_files_that_may_not_be_read(open_folder):
    """As a user: root may read everything."""
    folder = open_folder / "run"
    folder.mkdir()
    write(folder, 5)
    path = write(folder, 10)
    (path / "state.safetensors").chmod(0)
    program = f"""
        import os
        from pathlib import Path
        from launcher.training import checkpoint
        if os.getuid() == 0:
            os.setuid(65534)
        said = []
        print(checkpoint.newest(Path({str(folder)!r}), said.append).step, *said)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.stdout.startswith("5 damaged: "), done
    assert "state.safetensors cannot be read: Permission denied" in done.stdout


def test_a_newer_format_and_what_is_no_checkpoint(tmp_path):
    path = write(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["format"] = 99
    manifest["sha256"] = checkpoint._digest_of(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is of format 99, and this version of the launcher reads"):
        checkpoint.read(path)
    with pytest.raises(UserError, match=r"it has no manifest\.json"):
        checkpoint.read(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        checkpoint.read(tmp_path / "gone")
    assert checkpoint.newest(tmp_path / "gone", pytest.fail) is None


# Interruptions


def test_a_kill_at_any_moment_leaves_whole_checkpoints_only(tmp_path):
    program = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from launcher.training import checkpoint
        folder = Path({str(tmp_path)!r})
        step = 0
        while True:
            step += 1
            values = {{"a": np.full(300_000, step, np.int32)}}
            checkpoint.write(folder, step, values, {{}})
            checkpoint.keep_newest(folder, 2, step)
            if step == 3:
                print(flush=True)
    """
    rng = np.random.default_rng(0)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        steps = checkpoint.steps_in(tmp_path)
        assert steps
        for step in steps:
            found = checkpoint.read(tmp_path / f"checkpoint-{step}")
            ((_, values),) = checkpoint.load(found, {"a": TensorInfo("I32", (300_000,))})
            assert np.all(values == step)
        checkpoint.remove_leftovers(tmp_path)
        assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_one_that_was_being_replaced_is_put_back(tmp_path):
    path = write(tmp_path)
    path.rename(tmp_path / ".checkpoint-5.old")
    checkpoint.remove_leftovers(tmp_path)
    assert checkpoint.read(path).step == 5
    shutil.copytree(path, tmp_path / ".checkpoint-5.old")
    checkpoint.remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]


def test_the_newest_are_kept_by_their_number_whatever_the_clock_said(tmp_path):
    for step in (100, 20, 3):  # the newest is the oldest file
        path = write(tmp_path, step)
        os.utime(path, (2e9 - step, 2e9 - step))
    removed = checkpoint.keep_newest(tmp_path, 2, 100)
    assert [path.name for path in removed] == ["checkpoint-3"]
    assert checkpoint.steps_in(tmp_path) == [20, 100]
    assert checkpoint.keep_newest(tmp_path, 5, 100) == []


def test_the_one_that_was_just_written_is_never_removed(tmp_path):
    for step in (2, 4, 8):
        write(tmp_path, step)
    assert [path.name for path in checkpoint.keep_newest(tmp_path, 1, 4)] == ["checkpoint-2"]
    assert checkpoint.steps_in(tmp_path) == [4, 8]


def test_one_on_another_disk_is_let_go_of(tmp_path):
    elsewhere = write(tmp_path, 1).rename(tmp_path / "elsewhere")
    (tmp_path / "checkpoint-1").symlink_to(elsewhere)
    write(tmp_path, 2)
    checkpoint.keep_newest(tmp_path, 1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "elsewhere"]
    assert checkpoint.read(elsewhere).step == 1


def test_those_that_a_run_does_not_go_on_from_are_set_aside(tmp_path):
    for step in (2, 4, 8):
        write(tmp_path, step)
    moved = [(old.name, new.name) for old, new in checkpoint.set_aside(tmp_path, 2)]
    assert moved == [(f"checkpoint-{n}", f"checkpoint-{n}.set-aside-1") for n in (4, 8)]
    write(tmp_path, 8)
    ((_, again),) = checkpoint.set_aside(tmp_path, 4)
    assert again.name == "checkpoint-8.set-aside-2"
    assert checkpoint.steps_in(tmp_path) == [2]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_only_has_the_name_of_one_is_passed_over(tmp_path, kind):
    write(tmp_path, 2)
    name = tmp_path / "checkpoint-8"
    name.write_text("") if kind == "file" else name.symlink_to(tmp_path / "nowhere")
    said = []
    assert checkpoint.newest(tmp_path, said.append).step == 2
    assert "checkpoint-8" in said[0]


def test_a_full_disk_leaves_what_was_there(small_disk):
    folder = small_disk(200_000)
    write(folder, 5)
    large = {"a": np.zeros(200_000, np.float32)}
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(folder, 10, large, {})
    assert [path.name for path in folder.iterdir()] == ["checkpoint-5"]
    assert checkpoint.read(folder / "checkpoint-5").step == 5
