"""Reading what a run has left: finished, going on, damaged, or none."""

import json
import os
import shutil

import numpy as np
import pytest

from launcher.report.files import checkpoints
from launcher.report.run import read_run
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
    found = read(run)
    assert len(found.steps) == 300
    # One that has its end is not being written: it is damaged.
    is_damaged = end.endswith("\n")
    assert (
        found.problems == ["metrics.jsonl: line 301 cannot be read and is left out."] * is_damaged
    )


def test_a_last_line_that_lacks_only_its_end(run):
    add(run, "metrics.jsonl", '{"step": 301, "loss": 0.5}')
    assert len(read(run).steps) == 301


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[1]", "3, 4", '{"loss": 1}', '{"step": null}', '{"step": 1e400}', '{"step": "5"}',
     '{"step": true}', "[" * 100_000, "null", "\xff"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["metrics.jsonl", "validation/figures.jsonl"])
def test_a_damaged_line_is_left_out_and_said(run, name, line):
    lines = (run / name).read_text().splitlines()
    before = len(lines)
    lines[1] = line
    (run / name).write_bytes("\n".join([*lines, ""]).encode("latin-1"))
    found = read(run)
    log = found.steps if name == "metrics.jsonl" else found.validations
    assert len(log) == before - 1
    assert found.problems == [f"{name}: line 2 cannot be read and is left out."]
    lines[-1] = line
    (run / name).write_bytes("\n".join([*lines, ""]).encode("latin-1"))
    assert read(run).problems == [
        f"{name}: 2 lines cannot be read and are left out, the first is line 2."
    ]


def test_blank_lines_pass_and_the_others_keep_their_numbers(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[2:2] = ["", "  ", "\r"]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n\n")
    found = read(run)
    assert len(found.steps) == 300 and found.problems == []
    lines[8] = "{"
    (run / "metrics.jsonl").write_text("\n".join(lines))
    assert read(run).problems == ["metrics.jsonl: line 9 cannot be read and is left out."]


def test_a_value_that_is_no_number_counts_as_missing_and_is_said(tmp_path):
    lines = [
        {"step": 1, "loss": 1.5, "lr": 10**400, "memory_bytes": 2**70, "word": "x"},
        {"step": 2, "loss": "2.5", "lr": 0.5, "memory_bytes": 1},
        {"step": 3, "loss": [1], "lr": None, "memory_bytes": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read(tmp_path)
    assert found.steps.finite("loss").tolist() == [1.5]
    assert found.steps.finite("lr").tolist() == [0.5]
    assert found.steps.finite("memory_bytes").tolist() == [2**70, 1, 1]
    assert "word" not in found.steps.columns
    assert found.problems == [
        "metrics.jsonl: 2 values of loss are no numbers and count as missing.",
        "metrics.jsonl: 1 value of lr is no number and counts as missing.",
        "metrics.jsonl: 1 value of word is no number and counts as missing.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "changed": {"a": 3}}',
        '{"step": null}',
        '{"checkpoint": 5}',
        '{"changed": null}',
    ],
)
def test_a_line_about_a_continuation_that_makes_no_sense(run, line):
    (run / "resumes.jsonl").write_text(f'{line}\n{{"step": 5}}\n')
    found = read(run)
    assert found.resumes == [{"step": 5}]
    assert found.problems == ["resumes.jsonl: line 1 cannot be read and is left out."]


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
    assert [(found.name, found.size) for found in checkpoints(run)] == [
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


@pytest.mark.parametrize("where", ["listing", "reading"])
def test_a_checkpoint_that_the_run_removes_meanwhile(run, monkeypatch, where):
    for step in (1, 2):
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / "state.safetensors").write_bytes(bytes(step))
    walk = os.walk

    def removing(path):
        if path.name == "checkpoint-1":
            if where == "reading":
                listed = list(walk(path))
            shutil.rmtree(path)
            if where == "reading":
                return listed
        return walk(path)

    monkeypatch.setattr(os, "walk", removing)
    assert [(found.name, found.size) for found in checkpoints(run)] == [("checkpoint-2", 2)]


_PART = '{"parts": {"vae": %s}}'


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.yaml", "train: null", "train is null instead of a mapping"),
        ("config.yaml", "train: [1]", "train is a list instead of a mapping"),
        ("config.yaml", "3: 4", "it has the name 3, which is no text"),
        ("config.yaml", "[]", "it is a list instead of a mapping"),
        ("precision.json", "[]", "it is a list instead of a mapping"),
        ("precision.json", '{"parts": null}', "parts is null instead of a mapping"),
        ("precision.json", '{"parts": [1]}', "parts is a list instead of a mapping"),
        ("precision.json", _PART % "3", "parts.vae is a number instead of a mapping"),
        ("precision.json", _PART % '{"stored": [1]}', "parts.vae.stored is a list instead"),
        ("precision.json", _PART % '{"trained": {"float32": 3}}', "parts.vae.trained.float32 is a"),
        ("precision.json", _PART % '{"stored": {"float32": {"bytes": "3"}}}',
         "parts.vae.stored.float32.bytes is a text instead of a number"),
        ("precision.json", _PART % ('{"stored": {"float32": {"bytes": 1%s}}}' % ("0" * 400)),
         "bytes is too large a number"),
        ("precision.json", _PART % '{"observed": {"matmul": null}}', "observed.matmul is null"),
        ("precision.json", '{"notes": [3]}', r"notes\[0\] is a number instead of a text"),
        ("provenance.json", '{"packages": ["numpy"]}', "packages is a list instead of a mapping"),
        ("provenance.json", '{"command_line": null}', "command_line is null instead of a list"),
        ("provenance.json", '{"plugins": [3]}', r"plugins\[0\] is a number instead of a mapping"),
        ("exported.json", '{"files": null}', "files is null instead of a list"),
        ("exported.json", "[" * 100_000, "recursion"),
    ],
)  # fmt: skip
def test_content_of_a_wrong_type_is_named(run, name, content, says):
    (run / name).write_text(content)
    with pytest.raises(
        UserError, match=rf"{name} cannot be read: .*{says}.*Restore it from a copy"
    ):
        read(run)
