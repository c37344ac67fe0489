"""Reading what a run has left: finished, going on, damaged, or none."""

import json

import numpy as np
import pytest

from launcher.report.run import checkpoints, read_run
from launcher.training.errors import UserError


def read(folder):
    return read_run(folder, folder.name)


def add(folder, name, text):
    with open(folder / name, "a") as file:
        file.write(text)


def test_all_of_it(run):
    (run / "provenance-1.json").write_text('{"started": "earlier"}')
    (run / "resumes.jsonl").write_text('{"time": "t", "step": 5}\n')
    found = read(run)
    assert len(found.steps) == 300 and len(found.validations) == 3
    assert found.steps.get("loss")[0].tolist() == list(range(1, 301))
    assert found.config["train"]["learning_rate"] == 1e-5
    assert [about["started"] for about in found.provenance] == ["earlier", "2026-01-01T00:00:00Z"]
    assert found.resumes == [{"time": "t", "step": 5}]
    assert found.exported["step"] == 300
    assert set(found.precision["parts"]) == {"transformer", "controlnet"}


def test_metrics_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    found = read(tmp_path)
    assert len(found.steps) == len(found.validations) == 0
    assert (found.config, found.precision, found.exported) == ({}, None, None)


@pytest.mark.parametrize("end", ['{"step": 301, "lo', '{"step"', "{", '{"step": 301, "loss": 0.\n'])
def test_a_line_that_is_being_written(run, end):
    add(run, "metrics.jsonl", end)
    if end.endswith("\n"):  # it was not: it is damaged
        with pytest.raises(UserError, match=r"metrics.jsonl cannot be read: line 301 is no JSON"):
            read(run)
    else:
        assert len(read(run).steps) == 300


def test_a_last_line_that_lacks_only_its_end(run):
    add(run, "metrics.jsonl", '{"step": 301, "loss": 0.5}')
    assert len(read(run).steps) == 301


@pytest.mark.parametrize("line", ["nonsense", "[1]", "3, 4", '{"loss": 1}', '{"step": null}', ""])
def test_a_damaged_line_is_named(run, line):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[4] = line
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read: line 5 ") as error:
        read(run)
    assert "\n" not in str(error.value)


def test_null_and_what_a_line_does_not_have(tmp_path):
    lines = [
        {"step": 1, "loss": 1.5, "skipped": False},
        {"step": 2, "loss": None, "skipped": True},
        {"step": 2, "loss": 2.5, "own": 3, "word": "x"},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = read(tmp_path).steps
    x, y = steps.get("loss")
    assert x.tolist() == [1, 2, 2] and np.isnan(y).tolist() == [False, True, False]
    assert [column.tolist() for column in steps.get("own")] == [[2], [3]]
    assert steps.finite("loss").tolist() == [1.5, 2.5]
    assert "word" not in steps.columns
    assert len(steps.get("unheard of")[0]) == 0


def test_checkpoints_by_their_steps(run):
    for step in (100, 20):
        (run / f"checkpoint-{step}" / "controlnet").mkdir(parents=True)
        (run / f"checkpoint-{step}" / "state.safetensors").write_bytes(bytes(step))
        (run / f"checkpoint-{step}" / "controlnet" / "config.json").write_bytes(bytes(7))
    assert [(path.name, size) for path, size in checkpoints(run)] == [
        ("checkpoint-20", 27),
        ("checkpoint-100", 107),
    ]


@pytest.mark.parametrize(
    "name", ["precision.json", "provenance.json", "exported.json", "config.yaml"]
)
def test_a_damaged_file_is_named(run, name):
    (run / name).write_text("{ [")
    with pytest.raises(UserError, match=name):
        read(run)
