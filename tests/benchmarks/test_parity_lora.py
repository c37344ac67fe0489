"""The LoRA recipe's numbers against diffusers and PEFT on torch, in two small cases:

prior_text   prior preservation with a weight; adapters on CLIP too, which runs in the step
layers       adapters on layers of every kind; the loss weighted by the noise level

Both start from filled adapters with a `lora_alpha` that is not the rank.
"""

import json

import pytest
from safetensors.numpy import load_file

from tests.benchmarks.limits import LIMITS

CASES = ("prior_text", "layers")


@pytest.fixture(scope="module", params=CASES)
def figures(request, graph_mode, parity, reference_dir):
    return parity.compare(reference_dir, request.param)


@pytest.mark.parametrize("name", LIMITS)
def test_figure_is_within_its_limit(figures, name):
    assert figures[name] <= LIMITS[name]


@pytest.mark.parametrize("case", CASES)
def test_the_case_reaches_every_adapter(reference_dir, case):
    """Otherwise a gradient compared with nothing would agree."""
    folder = reference_dir / "cases" / case
    meta = json.loads((folder / "meta.json").read_text())
    recorded = load_file(folder / "outputs.safetensors")
    start = load_file(folder / "pytorch_lora_weights.safetensors")
    assert all(f"grad/{name}" in recorded for name in start)
    assert len(start) == meta["n_params"]
    assert not meta["grads_all_zero"]


@pytest.mark.parametrize("case", CASES)
def test_new_adapters_are_those_that_peft_makes(graph_mode, reference_dir, case):
    """The figures start from diffusers' file, which says itself what its layers are."""
    from flux_lora_plugin.adapters import parameters
    from flux_lora_plugin.config import LoraModelSection
    from flux_lora_plugin.models import build_networks

    folder = reference_dir / "cases" / case
    meta = json.loads((folder / "meta.json").read_text())
    asked = ("rank", "lora_alpha", "lora_layers", "train_text_encoder")
    section = LoraModelSection(
        pretrained_model_name_or_path=str(reference_dir / "tiny-flux"),
        **{name: meta[name] for name in asked},
    )
    networks = build_networks(section, seed=0)
    made = {
        f"{part}.{name}": parameter.shape
        for part in ("transformer", "text_encoder")
        if part in networks
        for name, parameter in parameters(networks[part]).items()
    }
    start = load_file(folder / "pytorch_lora_weights.safetensors")
    assert made == {name: value.shape for name, value in start.items()}


def test_the_cases_have_what_they_are_here_for(reference_dir):
    prior_text, layers = (
        json.loads((reference_dir / "cases" / case / "meta.json").read_text()) for case in CASES
    )
    assert prior_text["train_text_encoder"]
    assert prior_text["prior_loss_weight"] not in (None, 1)
    assert layers["weighting_scheme"] == "cosmap"
    for meta in (prior_text, layers):
        assert meta["lora_alpha"] != meta["rank"]
