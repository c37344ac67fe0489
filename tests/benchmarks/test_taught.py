"""What is compared: each case is a run that the launcher accepts, and differs from the first one in
what its name says."""

import re

import pytest

from benchmarks import taught
from launcher import cli

HALF = {"text_encoders": "half"}
HALF_TRAINED = {"trainable_params": "half", "name": "adamw_upcast", "stochastic_rounding": "true"}
WEIGHT_DECAY = {"name": "adam_weight_decay"}
DIFFERENCES = {
    "float32": {},
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


@pytest.mark.parametrize("name", taught.CASES)
def test_a_case_is_what_its_name_says(name, options):
    plain, found = options("float32"), options(name)
    assert found["max_train_steps"] == "600" and found["heldout_samples"] == "0"
    assert {key: found[key] for key in found if found[key] != plain[key]} == DIFFERENCES[name]
