"""Adapters: which layers, their first values, and the exported file."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from flux_common.adapter_targets import target_problems, unmatched
from launcher.training.errors import UserError

LAYERS = [
    "x_embedder",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.to_out.0",
    "transformer_blocks.0.ff.net.0.proj",
    "single_transformer_blocks.0.attn.to_q",
]


def test_targets_are_ends_of_names():
    targets = ["to_q", "attn.to_out.0", "x_embedder", "transformer_blocks.0.attn.to_q", LAYERS[4]]
    assert unmatched(targets, LAYERS) == []


@pytest.mark.parametrize(
    ("target", "substance"),
    [
        ("to_qq", "no linear layer of the model has a name that ends so. Did you mean to_q"),
        ("o_q", "Did you mean to_q"),
        ("attn.to_out", "transformer_blocks.0.attn.to_out has that name and is not a linear layer"),
        ("attn.to_out", "Did you mean attn.to_out.0"),
        ("0", "single_transformer_blocks.0 has that name"),
        ("zzz", "It has x_embedder, attn.to_q"),
    ],
)
def test_targets_that_match_nothing_or_too_much(target, substance):
    (problem,) = unmatched(["to_q", target], LAYERS)
    assert f"names {target!r}" in problem and substance in problem


def test_targets_are_checked_against_a_pipelines_files(tiny_flux):
    assert target_problems(str(tiny_flux), ["to_k", "ff.net.2", "proj_mlp"]) == []
    first, second = target_problems(str(tiny_flux), ["to_kk", "norm_q"])
    assert "Did you mean to_k" in first
    assert "'norm_q'" in second


def test_without_the_files_nothing_is_said(tmp_path):
    assert target_problems(str(tmp_path), ["anything"]) == []


def test_a_lora_goes_on_where_it_was_saved(make_transformer, tmp_path):
    import mindspore as ms

    from flux_common import lora_file
    from flux_lora_plugin.adapters import export_adapters, load_adapters, parameters

    trained = make_transformer()
    rng = np.random.default_rng(0)
    for parameter in parameters(trained).values():
        parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    export_adapters({"transformer": trained}, tmp_path)

    again = make_transformer(adapters=False)
    load_adapters(again, lora_file.read(str(tmp_path))["transformer"], "the base")
    found, expected = parameters(again), parameters(trained)
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        np.testing.assert_array_equal(parameter.asnumpy(), expected[name].asnumpy(), name)
    scales = [
        {cell.scaling["default"] for _, cell in model.cells_and_names() if hasattr(cell, "scaling")}
        for model in (again, trained)
    ]
    assert scales == [{2.0}, {2.0}]


def test_a_lora_for_another_model_is_not_loaded(make_transformer, tmp_path):
    from flux_common.lora_file import LoraPart
    from flux_lora_plugin.adapters import load_adapters, parameters

    transformer = make_transformer(adapters=False)
    lora = LoraPart(tmp_path / "x", "transformer", 4, 4, {"x_embedder": (3072, 64)})
    with pytest.raises(UserError, match="x_embedder is 64 to 3072 there, 64 to 32 here"):
        load_adapters(transformer, lora, "the base")
    assert parameters(transformer) == {}


def test_first_values_are_a_function_of_the_seed(make_transformer):
    from flux_lora_plugin.adapters import parameters

    first, again, other = (
        {name: p.asnumpy() for name, p in parameters(make_transformer(seed=seed)).items()}
        for seed in (0, 0, 1)
    )
    a = [name for name in first if ".lora_A." in name]
    assert len(a) * 2 == len(first) > 0
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if name in a:
            assert not np.array_equal(value, other[name])
        else:
            assert not np.any(value)
    # gaussian: standard deviation 1 / rank
    assert np.std(np.concatenate([first[name].ravel() for name in a])) == pytest.approx(1 / 4, 0.05)


def test_a_target_that_is_not_there_is_found_when_the_model_is(make_transformer):
    from flux_lora_plugin.adapters import add_adapters

    with pytest.raises(UserError, match=r"names 'to_z'.*Did you mean"):
        add_adapters(make_transformer(False), ["to_z"], rank=1, lora_alpha=1, seed=0)


def test_the_exported_file_is_diffusers(make_transformer, make_clip, tmp_path):
    from flux_lora_plugin.adapters import export_adapters, parameters

    models = {"transformer": make_transformer(), "text_encoder": make_clip()}
    path = export_adapters(models, tmp_path)
    assert path.name == "pytorch_lora_weights.safetensors"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with safe_open(path, framework="np") as file:
        names = set(file.keys())
        about = json.loads(file.metadata()["lora_adapter_metadata"])
        assert file.metadata()["format"] == "pt"
        name = "single_transformer_blocks.0.proj_mlp.lora_A.weight"
        value = file.get_tensor(f"transformer.{name}")
    np.testing.assert_array_equal(value, parameters(models["transformer"])[name].asnumpy())
    assert "transformer.transformer_blocks.0.attn.to_out.0.lora_B.weight" in names
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in names
    assert (about["transformer.r"], about["transformer.lora_alpha"]) == (4, 8)
    assert about["text_encoder.target_modules"] == ["k_proj", "out_proj", "q_proj", "v_proj"]
