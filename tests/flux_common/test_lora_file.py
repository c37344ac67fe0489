"""LoRA files: what their headers say, and which runs can go on from them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from flux_common.adapter_targets import selects_exactly
from flux_common.lora_file import METADATA_KEY, problems, read
from launcher.training.errors import UserError

TO_Q = "transformer_blocks.0.attn.to_q"
TO_K = "transformer_blocks.1.attn.to_k"
CLIP = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture
def write(tmp_path):
    """write({"transformer." + TO_Q: (out, in)}, rank=2, **metadata): the path of a LoRA file."""

    def write_file(layers, rank=2, **about):
        arrays = {}
        for name, (rows, columns) in layers.items():
            arrays[f"{name}.lora_A.weight"] = np.zeros((rank, columns), np.float32)
            arrays[f"{name}.lora_B.weight"] = np.zeros((rows, rank), np.float32)
        path = tmp_path / "pytorch_lora_weights.safetensors"
        metadata = {METADATA_KEY: json.dumps(about)} if about else None
        save_file(arrays, path, metadata=metadata)
        return str(path)

    return write_file


def found(path, base, **options):
    return problems(path, str(base), None, **{"trained": ["transformer"], **options})


def test_rank_scale_and_layers_are_in_the_header(write, tmp_path):
    path = write({f"transformer.{TO_Q}": (32, 16)}, **{"transformer.lora_alpha": 7})
    (lora,) = read(path).values()
    assert (lora.part, lora.rank, lora.lora_alpha) == ("transformer", 2, 7)
    assert lora.layers == {TO_Q: (32, 16)}
    assert read(str(tmp_path)) == read(path)  # the folder will do


def test_without_a_scale_it_is_the_rank(write):
    assert read(write({f"transformer.{TO_Q}": (32, 32)}, rank=3))["transformer"].lora_alpha == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "not a LoRA as diffusers saves it.*it is empty"),
        ({"lora_unet_double_blocks_0.lora_down.weight": (2, 4)}, "it has 'lora_unet_double"),
        ({"transformer.a.lora_A.weight": (2, 4)}, "damaged.*transformer.a.*and missing"),
        (
            {"transformer.a.lora_A.weight": (2, 4), "transformer.a.lora_B.weight": (4, 3)},
            r"damaged.*\[2, 4\] and \[4, 3\]",
        ),
        (
            {f"transformer.{layer}.lora_{letter}.weight": (rank, rank)
             for layer, rank in (("a", 2), ("b", 3)) for letter in "AB"},
            "different ranks.*ranks 2, 3",
        ),
    ],
)  # fmt: skip
def test_files_that_are_no_lora_of_one_rank(tmp_path, arrays, message):
    path = tmp_path / "x.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in arrays.items()}, path)
    with pytest.raises(UserError, match=message):
        read(str(path))


def test_settings_in_the_header_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {f"transformer.a.lora_{letter}.weight": np.zeros((2, 2)) for letter in "AB"}
    save_file(arrays, path, metadata={METADATA_KEY: "{'r': 2}"})
    with pytest.raises(UserError, match="lora_adapter_metadata, which is not JSON"):
        read(str(path))


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"lora_weights is .*/pytorch_lora_weights.safetensors"):
        read(str(tmp_path))


def test_a_lora_for_this_base_and_as_asked(write, tiny_flux):
    path = write({f"transformer.{TO_Q}": (32, 32), f"transformer.{TO_K}": (32, 32)})
    assert found(path, tiny_flux, rank=2, lora_alpha=2, targets=["to_q", "attn.to_k"]) == []


def test_a_lora_made_for_another_base(write, tiny_flux):
    layers = {f"transformer.{TO_Q}": (3072, 3072), "transformer.transformer_blocks.18.x": (8, 8)}
    (problem,) = found(write(layers), tiny_flux)
    for part in (
        f"another transformer than that of {tiny_flux}",
        "1 of its 2 layers are not in it (transformer_blocks.18.x)",
        f"1 have another size ({TO_Q} is 3072 to 3072 there, 32 to 32 here)",
        "leave model.lora_weights out",
    ):
        assert part in problem


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({"rank": 4}, "model.rank is 4, but"),
        ({"lora_alpha": 4}, "model.lora_alpha is 4, but"),
        ({"targets": ["to_q"]}, "model.lora_layers is to_q, which are not the 2 layers"),
        ({"targets": ["to_q", "to_k", "to_v"]}, "model.lora_layers is to_q,to_k,to_v"),
        ({"trained": ["transformer", "text_encoder"]}, "Set model.train_text_encoder=false"),
    ],
)
def test_what_is_asked_for_must_be_what_the_file_has(write, tiny_flux, asked, part):
    path = write({f"transformer.{TO_Q}": (32, 32), f"transformer.{TO_K}": (32, 32)})
    (problem,) = found(path, tiny_flux, **asked)
    assert part in problem


def test_adapters_on_clip_are_not_left_out(write, tiny_flux):
    path = write({f"transformer.{TO_Q}": (32, 32), f"text_encoder.{CLIP}": (32, 32)})
    (problem,) = found(path, tiny_flux)
    assert "Set model.train_text_encoder=true" in problem
    assert found(path, tiny_flux, trained=["transformer", "text_encoder"]) == []
    (problem,) = found(write({f"text_encoder.{CLIP}": (32, 32)}), tiny_flux,
                       trained=["transformer", "text_encoder"])  # fmt: skip
    assert "no adapters on the transformer" in problem


def test_targets_that_are_these_layers_and_no_others():
    assert selects_exactly(["to_q", "to_k"], [TO_Q, TO_K])
    assert selects_exactly([TO_Q, "to_k"], [TO_Q, TO_K])
    assert not selects_exactly(["to_q"], [TO_Q, TO_K])
    assert not selects_exactly(["to_q", "to_k", "to_v"], [TO_Q, TO_K])
