"""The recipe that trains an autoencoder: its loss against numpy, and a run of it."""

import importlib
import json
import re
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.examples.test_third_party_recipe import ROOT, copy_of, launch, pip_install, refusal

SOURCE = ROOT / "examples" / "autoencoder_recipe"
TINY_FLUX = ROOT / "tests" / "data" / "tiny-flux"
SETTINGS = (
    *("--recipe", "autoencoder", f"model.pretrained_model_name_or_path={TINY_FLUX}"),
    *("data.dataset_name=tests/data/circles", "max_train_samples=4", "resolution=32"),
    *("image_columns=[image,conditioning_image]", "train_batch_size=2", "max_train_steps=20"),
    *("learning_rate=1e-3", "ema_decay=0.9"),
)


def settings_with(setting):
    """SETTINGS, with one in the place of that of its name."""
    name = setting.partition("=")[0].rpartition(".")[2]
    return [*(other for other in SETTINGS if f"{name}=" not in other), setting]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    source = copy_of(SOURCE, tmp_path_factory.mktemp("autoencoder"))
    return pip_install(source, tmp_path_factory.mktemp("site"))


@pytest.fixture
def loss(monkeypatch, graph_mode):
    monkeypatch.syspath_prepend(str(SOURCE))
    yield importlib.import_module("autoencoder_recipe.loss").AutoencoderLoss
    for name in [name for name in sys.modules if name.startswith("autoencoder_recipe")]:
        del sys.modules[name]


def test_the_loss_is_the_formula(loss):
    from mindspore import Tensor

    from tests.examples.autoencoder_cells import Halves

    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    noise = rng.standard_normal((2, 2, 8, 8)).astype(np.float32)
    cell = loss(Halves(), 0.25)

    def expected():
        mean, logvar = np.split(images.astype(np.float64), 2, axis=1)
        logvar = logvar.clip(-30, 20)
        drawn = mean + np.exp(logvar / 2) * noise
        decoded = np.concatenate([2 * drawn, -drawn], axis=1)
        divergence = 0.5 * np.mean(mean**2 + np.exp(logvar) - 1 - logvar)
        return np.square(decoded - images).mean() + 0.25 * divergence

    for logvar in (None, 40, -40):  # the logarithm of a variance: as drawn, beyond the limits
        if logvar is not None:
            images[0, 2] = logvar
        found = float(cell(Tensor(images), Tensor(noise)))
        assert found == pytest.approx(expected(), rel=1e-5), logvar


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("runs") / "run"
    process = launch(installed, *SETTINGS, f"output_dir={output_dir}")
    assert process.returncode == 0, process.stderr
    return process, output_dir


def test_it_learns_and_exports_a_vae_for_diffusers(run):
    process, output_dir = run
    assert "8 samples in the data set" in process.stderr  # four rows of two images
    lines = (output_dir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    before = load_file(TINY_FLUX / "vae" / "diffusion_pytorch_model.safetensors")
    for folder in ("vae", "ema/vae"):
        after = load_file(output_dir / folder / "diffusion_pytorch_model.safetensors")
        assert after.keys() == before.keys()
        assert all(not np.array_equal(after[name], before[name]) for name in before)
    config = json.loads((output_dir / "vae" / "config.json").read_text())
    assert config["_class_name"] == "AutoencoderKL" and config["latent_channels"] == 16


def test_with_decoder_only_it_leaves_the_encoder_alone(installed, tmp_path):
    variant = ROOT / "examples" / "tiny_flux" / "decoder_only.py"
    settings = (*SETTINGS, "-p", str(variant), f"output_dir={tmp_path / 'run'}")
    process = launch(installed, *settings)
    assert process.returncode == 0, process.stderr
    before = load_file(TINY_FLUX / "vae" / "diffusion_pytorch_model.safetensors")
    for folder in ("vae", "ema/vae"):
        after = load_file(tmp_path / "run" / folder / "diffusion_pytorch_model.safetensors")
        changed = {name for name in before if not np.array_equal(after[name], before[name])}
        assert changed == {name for name in before if name.startswith("decoder.")}


@pytest.mark.parametrize(
    "setting, message",
    [
        ("data.resolution=36", "data.resolution is 36; the autoencoder reduces images by 8"),
        ("mixed_precision=fp16", "precision.mixed_precision is fp16; the autoencoder is trained"),
        ("image_columns=[picture]", "has no column 'picture'"),
        ("image_columns=[]", "data.image_columns is empty: name at least one column"),
        ("model.pretrained_model_name_or_path=/nowhere/a/b", "there is no folder '/nowhere/a/b'"),
    ],
)
def test_a_mistake_is_explained_before_anything_is_written(installed, tmp_path, setting, message):
    paragraph = refusal(installed, tmp_path / "run", *settings_with(setting))
    assert message in paragraph and "Traceback" not in paragraph


def test_a_vae_with_layers_that_would_not_be_trained_is_refused(installed, tmp_path):
    pipeline = tmp_path / "pipeline"
    shutil.copytree(TINY_FLUX, pipeline)
    config = pipeline / "vae" / "config.json"
    content = json.loads(config.read_text()) | {"use_quant_conv": True, "use_post_quant_conv": True}
    config.write_text(json.dumps(content))
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    for name, channels in (("quant_conv", 32), ("post_quant_conv", 16)):
        tensors[f"{name}.weight"] = np.zeros((channels, channels, 1, 1), np.float32)
        tensors[f"{name}.bias"] = np.zeros(channels, np.float32)
    save_file(tensors, weights)
    settings = settings_with(f"model.pretrained_model_name_or_path={pipeline}")
    process = launch(installed, *settings, f"output_dir={tmp_path / 'run'}")
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert re.search(r"has a convolution between .* with FLUX\.1's VAE\.", process.stderr)
