"""A ControlNet from the transformer or from its own folder, checked, and exported."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flux_common import loading
from flux_common.controlnet_folder import controlnet_problems, fit_problems, training_problems
from flux_controlnet_plugin import controlnet as controlnets
from hooks.types import Models
from launcher.training import safetensors_files
from launcher.training.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"

#: What diffusers 0.35 writes for a ControlNet of one double layer made from the tiny transformer,
#: without what it carries over from there (out_channels, _name_or_path).
CONFIG = {
    "_class_name": "FluxControlNetModel",
    "_diffusers_version": "0.35.2",
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 8],
    "conditioning_embedding_channels": None,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 32,
    "num_attention_heads": 2,
    "num_layers": 1,
    "num_mode": None,
    "num_single_layers": 0,
    "patch_size": 1,
    "pooled_projection_dim": 32,
}


@pytest.fixture(scope="session")
def transformer(graph_mode, tiny_flux):
    return loading.load_transformer(str(tiny_flux))


@pytest.fixture
def folder(tiny_flux, tmp_path):
    """A ControlNet's folder with one double layer, made without a framework."""
    source = load_file(tiny_flux / "transformer" / WEIGHTS)
    weights = {
        name: value
        for name, value in source.items()
        if name.startswith(("x_embedder", "context_embedder", "time_text", "transformer_blocks.0."))
    }
    for name, width in (("controlnet_blocks.0", 32), ("controlnet_x_embedder", 64)):
        weights[f"{name}.weight"] = np.full((32, width), 0.5, np.float32)
        weights[f"{name}.bias"] = np.full(32, 0.25, np.float32)
    path = tmp_path / "net"
    path.mkdir()
    save_file(weights, path / WEIGHTS)
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def check(tiny_flux, folder, double=None, single=None):
    return controlnet_problems(
        str(tiny_flux), str(folder), num_double_layers=double, num_single_layers=single
    )


@pytest.fixture
def hub(monkeypatch):
    """What the hub gives, by name: folders; nothing else is there."""
    from huggingface_hub import errors

    folders = {}

    def download(name, **options):
        if name not in folders:
            raise errors.LocalEntryNotFoundError("no network")
        return str(folders[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return folders


# Made from the transformer


@pytest.mark.parametrize(("double", "single"), [(1, 0), (1, 1), (2, 2)])
def test_copied_weights_are_equal_and_new_ones_zero(transformer, tiny_flux, double, single):
    source = load_file(tiny_flux / "transformer" / WEIGHTS)
    net = controlnets.controlnet_from_transformer(transformer, double, single)
    new = {"controlnet_x_embedder"}
    new |= {f"controlnet_blocks.{i}" for i in range(double)}
    new |= {f"controlnet_single_blocks.{i}" for i in range(single)}
    seen = set()
    for name, parameter in net.parameters_and_names():
        value = parameter.asnumpy()
        if name in source:
            np.testing.assert_array_equal(value, source[name], name)
        else:
            seen.add(name.rpartition(".")[0])
            assert not value.any(), name
            assert not np.signbit(value).any(), name
        assert parameter.requires_grad
        assert value.dtype == np.float32
    assert seen == new
    assert len(net.transformer_blocks) == double
    assert len(net.single_transformer_blocks) == single


def test_a_transformer_that_is_part_of_another_cell(transformer):
    """Its parameters' names then have a prefix; the ControlNet must get the weights all the same,
    and be independent of it."""
    from mindspore import nn

    class Loss(nn.Cell):
        def __init__(self):
            super().__init__()
            self.anything = transformer

    Loss()
    assert transformer.x_embedder.weight.name.startswith("anything.")
    net = controlnets.controlnet_from_transformer(transformer, 1, 0)
    before = transformer.x_embedder.weight.asnumpy().copy()
    np.testing.assert_array_equal(net.x_embedder.weight.asnumpy(), before)
    net.x_embedder.weight.set_data(net.x_embedder.weight * 0)
    np.testing.assert_array_equal(transformer.x_embedder.weight.asnumpy(), before)


@pytest.mark.parametrize(
    ("double", "single", "message"),
    [
        (3, 0, "num_double_layers is 3.*has only 2 double layers. Set .* to 2 or less"),
        (1, 3, "num_single_layers is 3.*only 2 single"),
        (0, 1, "num_double_layers is 0; .* at least 1"),
        (1, -1, "num_single_layers is -1; .* at least 0"),
    ],
)
def test_impossible_numbers_of_layers(transformer, tiny_flux, double, single, message):
    with pytest.raises(UserError, match=message):
        controlnets.controlnet_from_transformer(transformer, double, single)
    found = controlnet_problems(str(tiny_flux), num_double_layers=double, num_single_layers=single)
    assert len(found) == 1
    with pytest.raises(UserError, match=message):
        raise UserError(found[0])


def test_both_layer_mistakes_together(tiny_flux):
    found = controlnet_problems(str(tiny_flux), num_double_layers=4, num_single_layers=4)
    assert len(found) == 2


# From a folder


def test_load(graph_mode, folder, transformer):
    net = controlnets.load_controlnet(str(folder), transformer_config=transformer.config)
    stored = load_file(folder / WEIGHTS)
    assert {n: None for n, _ in net.parameters_and_names()}.keys() == stored.keys()
    for name, parameter in net.parameters_and_names():
        np.testing.assert_array_equal(parameter.asnumpy(), stored[name])
        assert parameter.requires_grad


def test_a_fitting_controlnet_has_no_problems(tiny_flux, folder):
    assert check(tiny_flux, folder) == []


def test_a_controlnet_on_the_hub_is_looked_up_at_once(tiny_flux, folder, hub):
    (problem,) = check(tiny_flux, "org/net")
    assert "'org/net' is not in the hub's cache" in problem
    (folder / WEIGHTS).unlink()  # the weights are fetched later
    hub["org/net"] = folder
    assert check(tiny_flux, "org/net") == []
    edit(folder, in_channels=128)
    (problem,) = check(tiny_flux, "org/net")
    assert "in_channels is 128, the transformer's 64" in problem


def test_a_controlnet_on_a_pipeline_of_the_hub(tiny_flux, folder, hub):
    hub["org/name"] = tiny_flux
    assert check("org/name", folder) == []
    edit(folder, num_mode=7)
    assert len(check("org/name", folder)) == 1
    assert len(check("org/unknown", folder)) == 1  # by itself


def test_layers_that_a_loaded_controlnet_does_not_have(tiny_flux, folder):
    held = CONFIG["num_layers"], CONFIG["num_single_layers"]
    assert check(tiny_flux, folder, *held) == []  # as in the config.yaml of the run that made it
    (problem,) = check(tiny_flux, folder, held[0] + 1, held[1])
    assert f"model.num_double_layers is {held[0] + 1}" in problem
    assert f"set it to {held[0]}" in problem


def test_a_folder_without_a_controlnet(tiny_flux, tmp_path):
    (problem,) = check(tiny_flux, tmp_path)
    assert problem.startswith("model.controlnet_model_name_or_path is")
    assert "holds no ControlNet" in problem


@pytest.mark.parametrize(
    ("changes", "weights", "fragment"),
    [
        (
            {"num_attention_heads": 4, "attention_head_dim": 8, "axes_dims_rope": [2, 2, 4]},
            {},
            "num_attention_heads is 4, the transformer's 2; attention_head_dim is 8",
        ),
        (
            {"in_channels": 128},
            {"x_embedder.weight": (32, 128), "controlnet_x_embedder.weight": (32, 128)},
            "in_channels is 128, the transformer's 64",
        ),
        (
            {"joint_attention_dim": 48},
            {"context_embedder.weight": (32, 48)},
            "joint_attention_dim is 48, the transformer's 32",
        ),
        (
            {"pooled_projection_dim": 48},
            {"time_text_embed.text_embedder.linear_1.weight": (32, 48)},
            "pooled_projection_dim is 48",
        ),
        ({"axes_dims_rope": [8, 4, 4]}, {}, "axes_dims_rope is [8, 4, 4]"),
    ],
)
def test_what_does_not_fit_the_transformer(tiny_flux, folder, changes, weights, fragment):
    edit(folder, **changes)
    stored = load_file(folder / WEIGHTS)
    stored.update({name: np.zeros(shape, np.float32) for name, shape in weights.items()})
    save_file(stored, folder / WEIGHTS)
    found = check(tiny_flux, folder)
    assert len(found) == 1, found
    assert "does not fit the transformer" in found[0]
    assert fragment in found[0]
    assert str(folder) in found[0]


def test_guidance_that_does_not_fit(tiny_flux, folder):
    edit(folder, guidance_embeds=False)
    stored = load_file(folder / WEIGHTS)
    save_file({n: w for n, w in stored.items() if "guidance" not in n}, folder / WEIGHTS)
    found = check(tiny_flux, folder)
    assert len(found) == 1
    assert "guidance_embeds is False, the transformer's True" in found[0]


def test_more_layers_than_the_transformer(tiny_flux, folder):
    edit(folder, num_layers=3)
    found = check(tiny_flux, folder)
    assert any("num_layers is 3, the transformer has only 2" in text for text in found)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"num_mode": 7}, "union of 7 modes"),
        (
            {"conditioning_embedding_channels": 16, "patch_size": 2},
            "conditioning_embedding_channels is 16",
        ),
    ],
)
def test_kinds_that_images_are_made_with_and_that_are_not_trained(
    tiny_flux, folder, changes, fragment
):
    from flux_controlnet_plugin import recipe

    edit(folder, **changes)
    config = json.loads((folder / "config.json").read_text())
    assert fit_problems(str(folder), config, CONFIG | {"num_layers": 9}) == []
    (problem,) = training_problems(str(folder), config)
    assert fragment in problem and str(folder) in problem
    assert any(fragment in text for text in check(tiny_flux, folder))
    models = Models(controlnet=SimpleNamespace(config=config), transformer=None)
    with pytest.raises(UserError, match=fragment):
        recipe.build_loss(None, models)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"_class_name": "SD3ControlNetModel"}, "describes a SD3ControlNetModel"),
        ({"_class_name": "FluxTransformer2DModel"}, "not a FluxControlNetModel"),
    ],
)
def test_unsupported_kinds(tiny_flux, folder, changes, fragment):
    edit(folder, **changes)
    found = check(tiny_flux, folder)
    assert len(found) == 1
    assert fragment in found[0]
    with pytest.raises(UserError) as error:
        controlnets.load_controlnet(str(folder))
    assert fragment in str(error.value)


def test_damaged_folders(tiny_flux, folder):
    (missing,) = check(tiny_flux, folder.parent / "nets")
    assert f"Did you mean {str(folder)!r}" in missing
    assert "model.controlnet_model_name_or_path" in missing
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4])
    (truncated,) = check(tiny_flux, folder)
    assert "truncated" in truncated


def test_the_folder_of_a_run_is_not_yet_the_controlnet(tiny_flux, folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(folder, run / "controlnet")
    (found,) = check(tiny_flux, run)
    assert f"Give {str(run / 'controlnet')!r}" in found


def test_a_pipeline_is_no_controlnet(tiny_flux):
    (found,) = check(tiny_flux, tiny_flux)
    assert "a whole pipeline, not a ControlNet" in found


# Exported


@pytest.fixture(scope="module")
def trained(transformer):
    """A ControlNet with something in its new layers, as part of another cell."""
    from mindspore import Tensor, nn

    class Loss(nn.Cell):
        def __init__(self, net):
            super().__init__()
            self.net = net

    net = controlnets.controlnet_from_transformer(transformer, 1, 0)
    random = np.random.default_rng(0)
    for parameter in net.get_parameters():
        parameter.set_data(Tensor(random.normal(size=parameter.shape).astype(np.float32)))
    return Loss(net).net


def test_export_in_diffusers_layout(trained, tmp_path):
    files = controlnets.export_controlnet(trained, tmp_path)
    assert files == [tmp_path / "controlnet" / name for name in ("config.json", WEIGHTS)]
    assert sorted((tmp_path / "controlnet").iterdir()) == sorted(files)
    assert json.loads(files[0].read_text()) == CONFIG
    stored = load_file(files[1])
    held = dict(trained.parameters_and_names())
    assert stored.keys() == held.keys()
    for name, value in stored.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, held[name].asnumpy())


def test_exported_controlnet_loads_again(trained, tiny_flux, tmp_path):
    controlnets.export_controlnet(trained, tmp_path)
    assert check(tiny_flux, tmp_path / "controlnet") == []
    again = controlnets.load_controlnet(str(tmp_path / "controlnet"))
    held = dict(trained.parameters_and_names())
    for name, parameter in again.parameters_and_names():
        np.testing.assert_array_equal(parameter.asnumpy(), held[name].asnumpy())


def test_export_in_half_precision(trained, tmp_path):
    held = {name: p.asnumpy() for name, p in trained.parameters_and_names()}
    _, file = controlnets.export_controlnet(trained, tmp_path, dtype="fp16")
    for name, value in load_file(file).items():
        np.testing.assert_array_equal(value, held[name].astype(np.float16))

    _, file = controlnets.export_controlnet(trained, tmp_path, dtype="bf16")
    assert {t.dtype for t in safetensors_files.read_header(file).values()} == {"BF16"}
    for name, value in load_file(file).items():
        # Round to the nearest, ties to even, on the bits.
        bits = held[name].view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        np.testing.assert_array_equal(value.view(np.uint16), rounded.astype(np.uint16))


def test_export_replaces_an_earlier_one(trained, tmp_path):
    (tmp_path / "controlnet").mkdir()
    (tmp_path / "controlnet" / "leftover").write_text("")
    controlnets.export_controlnet(trained, tmp_path)
    assert sorted(p.name for p in (tmp_path / "controlnet").iterdir()) == ["config.json", WEIGHTS]
    assert [p.name for p in tmp_path.iterdir()] == ["controlnet"]


def test_a_failed_export_leaves_what_was_there(trained, tmp_path, monkeypatch):
    (_, file) = controlnets.export_controlnet(trained, tmp_path)
    before = file.read_bytes()

    def full_disk(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_files, "write", full_disk)
    with pytest.raises(OSError, match="No space"):
        controlnets.export_controlnet(trained, tmp_path)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["controlnet"]


@pytest.mark.parametrize("asked", [None, "fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kept", ["fp32", "fp16", "bf16"])
def test_a_controlnet_of_any_policy_is_exported_in_the_dtype_asked_for(
    kept, asked, transformer, tmp_path
):
    """Under policy C its parameters are half precision; null leaves them as they are."""
    import ml_dtypes
    from safetensors import safe_open

    from flux_controlnet_plugin.controlnet import (
        controlnet_from_transformer,
        export_controlnet,
        load_controlnet,
    )
    from launcher.training.precision import cast_trained, dtype_of
    from launcher.training.weights import as_float32
    from tests.controlnets import fill_zero_layers

    controlnet = controlnet_from_transformer(transformer, 1, 0)
    fill_zero_layers(controlnet)
    numpy_dtypes = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
    expected = {
        name: as_float32(p).astype(numpy_dtypes[kept]).astype(numpy_dtypes[asked or kept])
        for name, p in controlnet.parameters_and_names()
    }
    cast_trained(controlnet, dtype_of(kept), dtype_of(kept))
    _, weights = export_controlnet(controlnet, tmp_path, dtype=asked)
    with safe_open(weights, "np") as file:
        in_file = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert in_file == {{"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[asked or kept]}
    again = dict(load_controlnet(str(tmp_path / "controlnet")).parameters_and_names())
    assert again.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(as_float32(again[name]), value.astype(np.float32))
