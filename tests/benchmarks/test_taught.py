"""What is compared: each case is a run that the launcher accepts, and differs from the first one in
what its name says."""

import json
import re

import pytest

from benchmarks import taught
from launcher import cli

HALF = {"text_encoders": "half"}
HALF_TRAINED = {"trainable_params": "half", "name": "adamw_upcast", "stochastic_rounding": "true"}
WEIGHT_DECAY = {"name": "adam_weight_decay"}
DIFFERENCES = {
    "float32": {},
    "float32, seed 1": {"seed": "1"},
    "float32, seed 2": {"seed": "2"},
    "policy A, bf16": {"mixed_precision": "bf16"},
    "policy A, fp16": {"mixed_precision": "fp16"},
    "policy B, bf16": {"mixed_precision": "bf16", **HALF},
    "policy B, fp16": {"mixed_precision": "fp16", **HALF},
    "policy C, bf16": {"mixed_precision": "bf16", **HALF, **HALF_TRAINED},
    "policy C, fp16": {"mixed_precision": "fp16", **HALF, **HALF_TRAINED},
    "AdamWeightDecay": WEIGHT_DECAY,
    "MindONE's settings": {
        **WEIGHT_DECAY,
        "learning_rate": "5.0e-06",
        "lr_scheduler": "constant",
        "lr_warmup_steps": "0",
    },
}


@pytest.fixture
def options(capsys, tmp_path, monkeypatch):
    """The options of a case, by name."""
    monkeypatch.chdir(taught.ROOT)

    def of(name):
        arguments = taught.launcher_arguments(tmp_path / "run", 600, taught.CASES[name])
        assert cli.main(["config", *arguments]) == 0, capsys.readouterr().err
        return dict(re.findall(r"^  [* ] (\w+) +(\S+)", capsys.readouterr().out, re.MULTILINE))

    return of


def test_other_settings_are_another_run(monkeypatch, tmp_path):
    names = {taught.folder_name(case, steps) for case in taught.CASES for steps in (300, 600)}
    assert len(names) == 2 * len(taught.CASES)
    name = taught.folder_name("policy A, bf16", 600)
    assert re.fullmatch(r"policy-a-bf16-600-[0-9a-f]{8}", name)
    assert name == taught.folder_name("policy A, bf16", 600)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(taught, "BASE", tmp_path)
    assert name != taught.folder_name("policy A, bf16", 600)


def test_the_figures_of_a_run(tmp_path):
    """Losses of the last steps, without those that were skipped; seconds of all."""
    lines = [{"loss": 9.0, "step_seconds": 1.0, "skipped": False}] * 30
    lines += [{"loss": 2.0, "step_seconds": 3.0, "skipped": False}] * taught.LAST
    lines += [{"loss": 1e9, "step_seconds": 3.0, "skipped": True}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert taught.figures(tmp_path) == {"loss": 2.0, "step_seconds": 3.0, "skipped": 1}


def test_what_has_failed_is_in_the_table(capsys):
    found = taught.measure({"float32": None}, samples=2)
    assert found == [{"name": "float32", "failed": True}]
    assert capsys.readouterr().out.splitlines()[1] == f"{'float32':<22}  failed; see above"


@pytest.mark.parametrize("name", taught.CASES)
def test_a_case_is_what_its_name_says(name, options):
    plain, found = options("float32"), options(name)
    assert found["max_train_steps"] == "600" and found["heldout_samples"] == "0"
    assert {key: found[key] for key in found if found[key] != plain[key]} == DIFFERENCES[name]
