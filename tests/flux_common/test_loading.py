"""Every part of a pipeline gets exactly the weights of its files, or an error names what is not."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flux_common import loading
from flux_common.pipeline_folder import weight_files
from launcher.training.errors import UserError

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture
def pipeline(tiny_flux, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny_flux, tmp_path / "tiny-flux")


def assert_holds(model, folder):
    """The model has the names of the files, and their values, in float32."""
    stored = {}
    for file in weight_files(folder):
        stored.update(load_file(file))
    held = loading.file_names(model)
    assert held.keys() == stored.keys()
    for name, parameter in held.items():
        assert str(parameter.dtype) == "Float32"
        np.testing.assert_array_equal(parameter.asnumpy(), stored[name].astype(np.float32), name)


def test_transformer(tiny_flux):
    transformer = loading.load_transformer(str(tiny_flux))
    assert type(transformer).__name__ == "FluxTransformer2DModel"
    assert_holds(transformer, tiny_flux / "transformer")
    # Here mindone's own names are diffusers'.
    assert loading.file_names(transformer) == dict(transformer.parameters_and_names())
    assert not transformer.training


def test_vae(tiny_flux):
    vae = loading.load_vae(str(tiny_flux))
    assert_holds(vae, tiny_flux / "vae")
    assert vae.config.shift_factor == 0.1159


def test_text_encoders(tiny_flux):
    clip, t5 = loading.load_text_encoders(str(tiny_flux))
    assert_holds(clip, tiny_flux / "text_encoder")
    assert_holds(t5, tiny_flux / "text_encoder_2")
    # The file holds T5's embedding once; the encoder uses that very parameter.
    assert t5.encoder.embed_tokens.weight is t5.shared.weight
    assert not clip.training
    assert not t5.training


def test_tokenizers_and_scheduler(tiny_flux):
    clip, t5 = loading.load_tokenizers(str(tiny_flux))
    assert clip.model_max_length == 77
    assert t5("a circle").input_ids[-1] == t5.eos_token_id
    scheduler = loading.load_scheduler(str(tiny_flux))
    assert scheduler.config.use_dynamic_shifting


def test_loading_says_nothing(tiny_flux, capfd, recwarn):
    loading.load_text_encoders(str(tiny_flux))
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []


def test_shards_variant_and_bfloat16(pipeline):
    """Two shards in bfloat16 under a variant's name arrive as float32, exactly."""
    folder = pipeline / "transformer"
    stem = "diffusion_pytorch_model"
    weights = {
        name: value.astype(ml_dtypes.bfloat16)
        for name, value in load_file(folder / f"{stem}.safetensors").items()
    }
    (folder / f"{stem}.safetensors").unlink()
    files = [f"{stem}.bf16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    weight_map = {name: files[i % 2] for i, name in enumerate(sorted(weights))}
    for file in files:
        save_file({n: w for n, w in weights.items() if weight_map[n] == file}, folder / file)
    index = json.dumps({"weight_map": weight_map})
    (folder / f"{stem}.safetensors.index.bf16.json").write_text(index)

    transformer = loading.load_transformer(str(pipeline), variant="bf16")
    for name, parameter in transformer.parameters_and_names():
        np.testing.assert_array_equal(parameter.asnumpy(), weights[name].astype(np.float32))


@pytest.mark.parametrize(
    ("part", "load"),
    [("text_encoder", loading.load_text_encoders), ("vae", loading.load_vae)],
)
def test_missing_left_over_and_wrong_shaped_weights_are_listed(pipeline, part, load):
    file = next((pipeline / part).glob("*.safetensors"))
    weights = load_file(file)
    removed = next(n for n in sorted(weights) if n.endswith("norm1.weight"))
    reshaped = next(n for n in sorted(weights) if n.endswith(("q_proj.weight", "to_q.weight")))
    del weights[removed]
    weights[reshaped] = weights[reshaped][:1]
    weights["bogus.weight"] = np.zeros(3, np.float32)
    save_file(weights, file)
    with pytest.raises(UserError) as error:
        load(str(pipeline))
    text = str(error.value)
    assert f"1 of the model's weights are missing ({removed})" in text
    assert f"1 have another shape ({reshaped} is [1, " in text
    assert "1 have no place in the model (bogus.weight)" in text


def test_surplus_weights_of_a_full_t5_are_no_error(pipeline):
    file = pipeline / "text_encoder_2" / "model.safetensors"
    weights = load_file(file)
    save_file({**weights, "lm_head.weight": np.zeros((256, 32), np.float32)}, file)
    loading.load_text_encoders(str(pipeline))


def test_light_checks_come_first(pipeline):
    shutil.rmtree(pipeline / "vae")
    with pytest.raises(UserError, match="no subfolder vae"):
        loading.load_vae(str(pipeline))


def test_broken_tokenizer(pipeline):
    file = pipeline / "tokenizer_2" / "tokenizer.json"
    file.write_text(file.read_text().replace('"Unigram"', '"Bigram"'))
    with pytest.raises(UserError, match="tokenizer_2 cannot be loaded"):
        loading.load_tokenizers(str(pipeline))
