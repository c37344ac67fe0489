"""A run's folder: refused when it is not free, claimed by one run only, never written over."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from launcher.provenance import installed_packages
from launcher.rundir import RunDir, problems
from launcher.training.errors import UserError

STEP = {
    "step": 1,
    "loss": 0.25,
    "lr": 1e-5,
    "grad_norm": 0.5,
    "step_seconds": 0.1,
    "stall_share": 0.25,
    "samples_per_second": 40.0,
    "skipped": False,
    "memory_bytes": 1 << 20,
}


def lines(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# A free folder


def test_a_run_leaves_its_configuration_its_provenance_and_a_line_a_step(tmp_path):
    with RunDir.claim(tmp_path / "runs" / "first", "train:\n  seed: 1\n") as run:
        run.write_provenance(
            command_line=["launcher", "--recipe", "toy"],
            seed=1,
            device="CPU",
            world_size=1,
            plugins=[{"name": "toy", "sha256": "0" * 64}],
        )
        run.write_metrics(**STEP)
        run.write_metrics(**{**STEP, "step": 2}, metrics={"t_mean": np.float32(0.5)})

    assert run.path == tmp_path / "runs" / "first"
    assert (run.path / "config.yaml").read_text() == "train:\n  seed: 1\n"
    assert lines(run) == [STEP, {**STEP, "step": 2, "t_mean": 0.5}]
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert provenance["command_line"] == ["launcher", "--recipe", "toy"]
    assert provenance["plugins"] == [{"name": "toy", "sha256": "0" * 64}]
    assert provenance["packages"]["numpy"] == np.__version__
    assert provenance["python"]["version"] == sys.version.split()[0]
    assert provenance["started"].endswith("Z")


@pytest.mark.parametrize("prepare", [lambda p: None, Path.mkdir], ids=["new", "empty"])
def test_a_new_and_an_empty_folder_are_free(tmp_path, prepare):
    folder = tmp_path / "run"
    prepare(folder)
    assert problems(folder) == []
    RunDir.claim(folder, "").close()
    assert contents(folder) == ["config.yaml", "metrics.jsonl"]


def test_files_that_no_run_writes_may_lie_there(tmp_path):
    (tmp_path / "notes.txt").write_text("try a larger batch")
    (tmp_path / ".nfs").mkdir()
    assert problems(tmp_path) == []
    RunDir.claim(tmp_path, "").close()
    assert (tmp_path / "notes.txt").read_text() == "try a larger batch"


def test_a_folder_of_a_name_that_a_recipe_may_choose_is_in_the_way(tmp_path):
    (tmp_path / "controlnet").mkdir()
    (problem,) = problems(tmp_path)
    assert "has folders in it (controlnet)" in problem
    with pytest.raises(UserError, match="has folders in it"):
        RunDir.claim(tmp_path, "")


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with RunDir.claim("~/run", "") as run:
        assert run.path == tmp_path / "run"


# A folder that is not free


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("config.yaml", "a run (config.yaml)"),
        ("metrics.jsonl", "a run (metrics.jsonl)"),
        ("checkpoint-500/state.json", "a run (checkpoint-500)"),
        ("controlnet/diffusion_pytorch_model.safetensors", "model weights (controlnet/diff"),
        ("model_index.json", "model weights (model_index.json)"),
    ],
)
def test_a_folder_with_a_run_or_with_weights_is_refused_and_left_alone(tmp_path, name, holds):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    before = contents(tmp_path)

    (problem,) = problems(tmp_path)
    assert f"{str(tmp_path)!r} already holds {holds}" in problem
    assert "choose another train.output_dir" in problem
    with pytest.raises(UserError, match="already holds"):
        RunDir.claim(tmp_path, "new")
    assert contents(tmp_path) == before
    assert file.read_text() == "precious"


def test_of_many_files_three_are_named(tmp_path):
    for step in range(5):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert "(checkpoint-0, checkpoint-1, checkpoint-2 and 2 more)" in problems(tmp_path)[0]


def test_a_file_in_the_place_of_the_folder_or_of_a_parent(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert "is a file, not a folder" in problems(file)[0]
    assert f"lies under {file}, which is a file" in problems(file / "run")[0]


def test_a_link_to_nowhere_and_a_name_that_no_file_can_have(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "is a link to nowhere" in problems(tmp_path / "link")[0]
    assert "is a link to nowhere" in problems(tmp_path / "link" / "run")[0]
    assert "File name too long" in problems(tmp_path / ("x" * 300))[0]
    assert "it is not the name of a folder" in problems("run\0")[0]
    assert "it is not the name of a folder" in problems("")[0]
    assert "cannot be used" in problems("~no-such-user-here/run")[0]


@pytest.mark.parametrize("name", ["there", "there/run"])
def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch, name):
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert "not writable" in problems(tmp_path / name)[0]
    assert contents(tmp_path) == ["there"]


def test_a_folder_that_turns_out_not_to_be_writable_is_the_users_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "run"))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(UserError, match="No space left on device"):
        RunDir.claim(tmp_path / "run", "")


def test_looking_touches_nothing(tmp_path):
    assert problems(tmp_path / "a" / "b") == []
    assert contents(tmp_path) == []


# Two runs, several processes


def test_of_two_runs_at_the_same_moment_one_is_refused(tmp_path, monkeypatch):
    # Both have looked and found the folder free.
    monkeypatch.setattr("launcher.rundir.problems", lambda output_dir: [])
    outcomes = []
    start = threading.Barrier(8)

    def run(number):
        start.wait()
        try:
            RunDir.claim(tmp_path / "run", f"number: {number}").close()
            outcomes.append(number)
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, int)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(refused) == 7
    assert all("taken by another run" in message for message in refused)
    assert (tmp_path / "run" / "config.yaml").read_text() == f"number: {winner}\n"


def test_only_the_main_process_writes(tmp_path):
    with RunDir.claim(tmp_path / "run", "", is_main=False) as run:
        run.write_provenance(command_line=[], seed=0, device="CPU", world_size=2, plugins=[])
        run.write_metrics(**STEP)
        run.write_json("precision.json", {})
    assert contents(tmp_path) == []


# What is left of a run that ended early


def test_a_run_that_fails_before_its_first_step_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), RunDir.claim(tmp_path / "runs" / "first", "") as run:
        run.write_json("precision.json", {"vae": "bf16"})
        raise RuntimeError
    assert contents(tmp_path) == []


def test_but_it_removes_nothing_that_others_wrote(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(RuntimeError), RunDir.claim(tmp_path / "run", ""):
        raise RuntimeError
    assert contents(tmp_path) == ["run", "run/notes.txt"]


def test_what_it_let_others_write_goes_with_it(tmp_path):
    (tmp_path / "there.txt").touch()
    with pytest.raises(ZeroDivisionError), RunDir.claim(tmp_path, "") as run:
        for name in ("there.txt", "id.txt", "tensorboard", "never"):
            run.let_write(name)
        (tmp_path / "id.txt").touch()
        (tmp_path / "tensorboard" / "deep").mkdir(parents=True)
        raise ZeroDivisionError
    assert contents(tmp_path) == ["there.txt"]


def test_a_run_that_fails_after_its_first_step_keeps_everything(tmp_path):
    with pytest.raises(RuntimeError), RunDir.claim(tmp_path, "") as run:
        run.write_metrics(**STEP)
        raise RuntimeError
    assert contents(tmp_path) == ["config.yaml", "metrics.jsonl"]
    assert lines(run) == [STEP]


def test_a_killed_run_has_lost_no_step_that_was_recorded(tmp_path):
    program = f"""
import os, signal
from launcher.rundir import RunDir
run = RunDir.claim({str(tmp_path)!r}, "")
for step in range(1, 4):
    run.write_metrics(**{{**{STEP!r}, "step": step}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    repository = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", program], cwd=repository)
    assert killed.returncode < 0
    metrics = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2, 3]


# Figures


def test_what_json_cannot_hold_is_null(tmp_path):
    with RunDir.claim(tmp_path, "") as run:
        step = {**STEP, "loss": math.nan, "grad_norm": math.inf, "skipped": True}
        run.write_metrics(**step, metrics={"scale": np.float32("-inf"), "count": np.int64(3)})
    assert lines(run) == [
        {**STEP, "loss": None, "grad_norm": None, "skipped": True, "scale": None, "count": 3}
    ]


def test_figures_keep_every_digit(tmp_path):
    loss = float(np.float32(0.1))
    with RunDir.claim(tmp_path, "") as run:
        run.write_metrics(**{**STEP, "loss": loss})
    assert lines(run)[0]["loss"] == loss


def test_a_further_figure_may_not_hide_another(tmp_path):
    with RunDir.claim(tmp_path, "") as run, pytest.raises(ValueError, match="'loss'"):
        run.write_metrics(**STEP, metrics={"loss": 1.0})
    assert lines(run) == []


@pytest.mark.parametrize("value", ["high", None, [1.0], np.zeros(2)])
def test_a_further_figure_must_be_a_number(tmp_path, value):
    with RunDir.claim(tmp_path, "") as run, pytest.raises((TypeError, ValueError)) as error:
        run.write_metrics(**STEP, metrics={"t_mean": value})
    assert "'t_mean' must be a number" in str(error.value)
    assert lines(run) == []


@pytest.mark.parametrize("figures", [{"score": "good"}, {"score": None}, {"step": 1.0}])
def test_figures_of_a_validation_are_numbers_and_hide_no_step(tmp_path, figures):
    with RunDir.claim(tmp_path, "") as run:
        with pytest.raises((TypeError, ValueError), match=r"'score' must be a number|named 'step'"):
            run.write_figures(2, {"loss": 0.5, **figures})
        assert not (tmp_path / "validation").exists()
        run.write_figures(2, {"loss": np.float32(0.5), "gap": math.nan})
    written = (tmp_path / "validation/figures.jsonl").read_text()
    assert json.loads(written) == {"step": 2, "loss": 0.5, "gap": None}


def test_a_file_is_never_written_twice(tmp_path):
    with RunDir.claim(tmp_path, "") as run:
        run.write_json("precision.json", {"vae": "bf16"})
        with pytest.raises(FileExistsError):
            run.write_json("precision.json", {"vae": "fp32"})
    assert json.loads((tmp_path / "precision.json").read_text()) == {"vae": "bf16"}


def test_every_installed_package_has_one_version():
    packages = installed_packages()
    assert {"mindspore", "mindone", "datasets", "numpy", "pluggy"} <= packages.keys()
    assert len({name.lower().replace("_", "-") for name in packages}) == len(packages)


# A full disk


def test_a_disk_without_room_for_the_weights(tmp_path, monkeypatch):
    import shutil

    with RunDir.claim(tmp_path / "run", "") as run:
        run.require_space(1, "weights")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
        run.require_space(5_000_000, "the weights")
        with pytest.raises(UserError, match=r"5\.0 MB left, and the weights take 7\.0 MB"):
            run.require_space(7_000_000, "the weights")


def test_a_disk_that_is_full_is_no_bug(tmp_path):
    folder = tmp_path / "run"
    error = OSError(errno.ENOSPC, "No space left on device", "weights")
    with (
        pytest.raises(UserError, match="could not write weights: No space left on device"),
        RunDir.claim(folder, ""),
    ):
        raise error
    assert not folder.exists()
