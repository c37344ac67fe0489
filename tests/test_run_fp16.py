"""Whole runs in fp16: the loss is scaled, and an update whose gradients overflow is no step."""

import json

import pytest

from tests.test_run import TINY, launch, metrics


def start(output_dir, *arguments):
    return launch(
        *("--recipe", "flux_controlnet", "--config", TINY, "-p", "tests/loud_loss.py"),
        *(f"output_dir={output_dir}", "precision.mixed_precision=fp16", "max_train_steps=3"),
        *("lr_scheduler=constant", "lr_warmup_steps=0", "max_train_samples=4", "device=CPU"),
        *arguments,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fp16")


def test_a_skipped_update_is_reported_and_no_step(folder, monkeypatch):
    monkeypatch.setenv("FACTOR", str(2.0**6))
    output_dir = folder / "loud"
    process = start(output_dir)
    assert process.returncode == 0, process.stderr
    lines = metrics(output_dir)
    assert lines[0]["skipped"] and not lines[-1]["skipped"]
    step, scale = 1, 2.0**16
    for line in lines:
        assert (line["step"], line["loss_scale"]) == (step, scale)
        step += not line["skipped"]
        scale /= 2 if line["skipped"] else 1
    assert step == 4
    assert len({line["loss"] for line in lines}) == 3  # tried again on the same batch
    report = json.loads((output_dir / "precision.json").read_text())["parts"]["transformer"]
    assert report["observed"]["attention"].keys() == {"float16"}


def test_after_too_many_in_a_row_the_run_stops_and_says_where(folder, monkeypatch):
    monkeypatch.setenv("FACTOR", "1e30")
    output_dir = folder / "too_loud"
    process = start(output_dir, "max_skipped_updates=3")
    assert process.returncode == 2
    message = process.stderr.partition("launcher: error: ")[2]
    assert "step 1 was tried 3 times without finite gradients" in message
    assert "multiplied by 16384; that is precision.max_skipped_updates" in message
    assert "The forward pass is finite" in message
    assert "the first gradient that is not finite is that of the output of network_call" in message
    assert "Traceback" not in process.stderr
    assert [(line["step"], line["skipped"]) for line in metrics(output_dir)] == [(1, True)] * 3
    assert not (output_dir / "controlnet").exists()
