"""Whole runs in bf16 on a CPU, where it is emulated."""

import re

import numpy as np
import pytest

from tests.test_run import NOISE, ROOT, TINY, launch, metrics


def start(recipe, config, output_dir, *arguments):
    process = launch(
        *("--recipe", recipe, "--config", config, "precision.mixed_precision=bf16"),
        *(f"output_dir={output_dir}", "max_train_steps=4", "lr_warmup_steps=0", "device=CPU"),
        *("lr_scheduler=constant", "max_train_samples=4", *arguments),
    )
    assert process.returncode == 0, process.stderr
    assert not NOISE.search(process.stderr), process.stderr
    assert re.search(r"^computation .* bfloat16 \(emulated\)$", process.stderr, re.M)
    losses = [line["loss"] for line in metrics(output_dir)]
    assert len(set(losses)) == 4 and np.all(np.isfinite(losses))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bf16")


def test_a_controlnet_trains_and_is_exported_in_float32(graph_mode, folder):
    import mindspore as ms

    from flux_common.loading import load_transformer
    from flux_controlnet_plugin.controlnet import load_controlnet

    start("flux_controlnet", TINY, folder / "controlnet", "gradient_checkpointing=true")
    config = load_transformer(str(ROOT / "tests/data/one-layer-flux")).config
    trained = load_controlnet(str(folder / "controlnet/controlnet"), transformer_config=config)
    for name, parameter in trained.parameters_and_names():
        assert parameter.dtype == ms.float32
        if name.startswith("controlnet_blocks."):
            assert np.any(parameter.asnumpy()), name


def test_lora_trains_and_is_exported_in_float32(folder):
    from safetensors.numpy import load_file

    from flux_common import lora_file

    start(
        "flux_lora_dreambooth",
        "tests/data/tiny_lora.yaml",
        folder / "lora",
        "train_text_encoder=true",
    )
    weights = load_file(folder / "lora/pytorch_lora_weights.safetensors")
    assert all(value.dtype == np.float32 for value in weights.values())
    assert all(np.any(value) for value in weights.values())
    parts = lora_file.read(str(folder / "lora/pytorch_lora_weights.safetensors"))
    assert parts.keys() == {"transformer", "text_encoder"}
