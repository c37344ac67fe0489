"""Images through MindONE's pipeline: beside Euler's method written down in numpy over the cell
whose predictions are compared with diffusers' (tests/benchmarks/test_parity.py)."""

import itertools
import json
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from flux_common.latents import encode_moments, image_ids, normalise, pack, sample_posterior, unpack
from launcher.training.images import to_float
from tests.flux_controlnet_plugin.conftest import TEXT_LENGTH

HEIGHT, WIDTH, STEPS = 32, 48, 3
TOKENS = HEIGHT * WIDTH // 256


@pytest.fixture(scope="module")
def vae(graph_mode, tiny_flux):
    from flux_common.loading import load_vae

    return load_vae(str(tiny_flux))


@pytest.fixture(scope="module")
def loss(make_loss):
    return make_loss(1, 1, filled=True)


@pytest.fixture(scope="module")
def painter_with(loss, tiny_flux):
    """painter_with(vae)."""
    from flux_common.loading import load_scheduler
    from flux_controlnet_plugin.images import Painter

    models = {
        "transformer": loss.transformer,
        "controlnet": loss.controlnet,
        "scheduler": load_scheduler(str(tiny_flux)),
    }
    return lambda vae: Painter(models, vae)


@pytest.fixture(scope="module")
def painter(painter_with, vae):
    return painter_with(vae)


@pytest.fixture(scope="module")
def settings():
    from flux_controlnet_plugin.images import Settings

    return Settings(HEIGHT, WIDTH, num_inference_steps=STEPS, seed=5)


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    shapes = ((TEXT_LENGTH, 32), (32,))
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


@pytest.fixture(scope="module")
def control():
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def image(painter, embeddings, control, settings):
    return painter.paint(embeddings, control, settings)


def sigmas(tokens, steps):
    """Those of FLUX.1-dev: shifted by exp(mu), which grows with the number of tokens."""
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    times = np.linspace(1, 1 / steps, steps)
    return np.append(np.exp(mu) / (np.exp(mu) + 1 / times - 1), 0).astype(np.float32)


def euler(loss, vae, embeddings, control, settings, with_control):
    import mindspore as ms
    from mindspore import nn

    from flux_controlnet_plugin.images import noise_of
    from launcher.training.random import generator

    class Predict(nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.loss = loss

        def construct(self, latents, control, timesteps, embeds, pooled, ids):
            used = control if with_control else None
            return self.loss.predict(latents, used, timesteps, embeds, pooled, ids)

    moments = encode_moments(vae, to_float(control)[None])
    eps = generator(settings.seed, "posterior of the control image", settings.number)
    shape = (1, moments.shape[1] // 2, HEIGHT // 8, WIDTH // 8)
    drawn = sample_posterior(moments, eps.standard_normal(shape).astype(np.float32))
    factors = vae.config.shift_factor, vae.config.scaling_factor
    control_latents = pack(normalise(drawn, *factors)).astype(np.float32)
    predict, latents = Predict(), noise_of(settings, 64)[None]
    rest = [ms.Tensor(array[None]) for array in embeddings]
    ids = ms.Tensor(image_ids(HEIGHT // 16, WIDTH // 16))
    levels = sigmas(TOKENS, settings.num_inference_steps)
    for level, following in itertools.pairwise(levels):
        velocity = predict(
            ms.Tensor(latents),
            ms.Tensor(control_latents),
            ms.Tensor([1000 * level], ms.float32),
            *rest,
            ids,
        )
        latents = latents + (following - level) * velocity.asnumpy()
    return unpack(latents, HEIGHT // 8, WIDTH // 8)


def difference(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def test_the_latents_are_those_of_eulers_method(painter, loss, vae, embeddings, control, settings):
    made = painter.latents([embeddings], [control], settings)
    expected = euler(loss, vae, embeddings, control, settings, True)
    assert difference(made, expected) < 2e-6
    # The comparison sees the ControlNet.
    assert difference(painter.latents([embeddings], [255 - control], settings), expected) > 1e-4


def test_at_scale_0_the_base_model_is_alone(painter, loss, vae, embeddings, control, settings):
    settings = replace(settings, controlnet_conditioning_scale=0.0)
    made = painter.latents([embeddings], [control], settings)
    expected = euler(loss, vae, embeddings, control, settings, False)
    assert difference(made, expected) < 2e-6
    np.testing.assert_array_equal(made, painter.latents([embeddings], [255 - control], settings))


def test_an_image_does_not_depend_on_those_made_before(
    painter, embeddings, control, settings, image
):
    others = [replace(settings, seed=6), replace(settings, number=1)]
    for other in others:
        assert (painter.paint(embeddings, control, other) != image).any()
    np.testing.assert_array_equal(painter.paint(embeddings, control, settings), image)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8


def test_one_graph_serves_every_scale_step_and_prompt(painter, loss, embeddings, control, settings):
    for scale, steps in ((0.3, 1), (0.7, 4)):
        changed = replace(
            settings, controlnet_conditioning_scale=scale, num_inference_steps=steps, number=2
        )
        painter.paint((embeddings[0] + 1, embeddings[1]), control, changed)
    assert len(loss.controlnet.compile_cache) == 1
    assert len(painter._pipeline.transformer._forward.compile_cache) == 1


def test_weights_that_have_changed_count(painter, loss, embeddings, control, settings, image):
    import mindspore as ms

    parameter = loss.controlnet.controlnet_blocks[0].weight
    before = parameter.asnumpy().copy()
    more = np.random.default_rng(2).standard_normal(before.shape).astype(np.float32)
    parameter.set_data(ms.Tensor(before + more))
    try:
        assert (painter.paint(embeddings, control, settings) != image).any()
    finally:
        parameter.set_data(ms.Tensor(before))
    np.testing.assert_array_equal(painter.paint(embeddings, control, settings), image)


def test_the_image_is_what_the_vae_makes_of_the_latents(
    painter, vae, embeddings, control, settings, image
):
    import mindspore as ms

    latents = painter.latents([embeddings], [control], settings)
    scaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    pixels = vae.decode(ms.Tensor(scaled.astype(np.float32)))[0].asnumpy()[0].transpose(1, 2, 0)
    shown = image.astype(np.float64) / 127.5 - 1
    assert np.abs(shown - pixels.clip(-1, 1)).max() <= 0.5 / 127.5 + 1e-5


def test_the_schedulers_table_for_training_stays_as_it_is(loss, vae, tiny_flux, painter, image):
    from flux_common.loading import load_scheduler
    from flux_controlnet_plugin.images import Painter, Settings

    scheduler = load_scheduler(str(tiny_flux))
    before = scheduler.timesteps.asnumpy().copy()
    models = {"transformer": loss.transformer, "controlnet": loss.controlnet}
    other = Painter({**models, "scheduler": scheduler}, vae)
    other._pipeline.scheduler.set_timesteps(2, mu=1.0)
    assert Settings(16, 16).num_inference_steps == 28
    np.testing.assert_array_equal(scheduler.timesteps.asnumpy(), before)


def vae_process_of(pipeline):
    from flux_controlnet_plugin.vae_process import VaeProcess

    return VaeProcess(*sections(pipeline))


def sections(pipeline):
    model = SimpleNamespace(
        pretrained_model_name_or_path=str(pipeline), revision=None, variant=None
    )
    return model, SimpleNamespace(mixed_precision="no")


@pytest.fixture(scope="module")
def vae_process(graph_mode, tiny_flux):
    return vae_process_of(tiny_flux)


def test_a_vae_in_another_process_makes_the_same_image(
    painter, painter_with, vae_process, embeddings, control, settings, image
):
    other = painter_with(vae_process)
    other._pipeline.transformer = painter._pipeline.transformer  # compiled already
    made = other.paint(embeddings, control, settings)
    assert np.abs(made.astype(int) - image).max() <= 1


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_a_vae_without_room_moves_to_another_process(
    half, painter, painter_with, vae, vae_process, embeddings, control, settings, image, monkeypatch
):
    from flux_controlnet_plugin import vae_process as module

    def exhausted(*_):
        raise RuntimeError("- Memory not enough:\nMemory isn't enough, alloc size: 17B.")

    in_memory = SimpleNamespace(
        config=vae.config,
        dtype=vae.dtype,
        diag_gauss_dist=vae.diag_gauss_dist,
        **{"encode": vae.encode, "decode": vae.decode, half: exhausted},
    )
    monkeypatch.setattr("flux_controlnet_plugin.images.load_vae", lambda *_: in_memory)
    monkeypatch.setattr(module, "VaeProcess", lambda *_: vae_process)
    said = []
    movable = module.MovableVae(*sections("somewhere"), said.append)
    other = painter_with(movable)
    other._pipeline.transformer = painter._pipeline.transformer  # compiled already
    made = other.paint(embeddings, control, settings)
    assert np.abs(made.astype(int) - image).max() <= 1
    assert np.array_equal(other.paint(embeddings, control, settings), made)
    (sentence,) = said
    assert "works on the CPU from now on" in sentence


def test_what_it_hands_back_has_the_dtype_of_the_networks(vae_process, monkeypatch):
    import mindspore as ms

    monkeypatch.setattr(vae_process, "dtype", ms.float16)
    (moments,) = vae_process.encode(ms.Tensor(np.zeros((1, 3, 32, 48)), ms.float16))
    assert moments.shape == (1, 32, 4, 6) and moments.dtype == ms.float16


def test_a_vae_that_is_not_there_is_reported(tmp_path, graph_mode):
    from launcher.training.errors import UserError

    with pytest.raises(UserError, match=r"model_index\.json"):
        vae_process_of(tmp_path)


@pytest.fixture(scope="module")
def of_others(tmp_path_factory, loss):
    """of_others(**options): the folder of a ControlNet in diffusers' layout, with weights as
    benchmarks/reference/make_sample_reference.py draws them."""
    from mindone.diffusers import FluxControlNetModel

    from flux_common import loading

    shared = (
        "in_channels", "attention_head_dim", "num_attention_heads", "joint_attention_dim",
        "pooled_projection_dim", "guidance_embeds", "axes_dims_rope",
    )  # fmt: skip

    def make(**options):
        config = {name: loss.transformer.config[name] for name in shared}
        config |= {"patch_size": 1, "num_layers": 1, "num_single_layers": 0, **options}
        names = loading.file_names(FluxControlNetModel(**config))
        weights = {}
        for name, parameter in names.items():
            generator = np.random.default_rng(zlib.crc32(name.encode()))
            value = 0.1 * generator.standard_normal(parameter.shape)
            weights[name] = value.astype(np.float32)
        folder = tmp_path_factory.mktemp("others")
        save_file(weights, folder / "diffusion_pytorch_model.safetensors")
        written = {"_class_name": "FluxControlNetModel", **config}
        (folder / "config.json").write_text(json.dumps(written))
        return folder

    return make


@pytest.mark.parametrize(
    "options, modes",
    [
        ({"num_mode": 3}, (0, 2)),
        ({"conditioning_embedding_channels": 16, "patch_size": 2}, (None,)),
    ],
)
def test_kinds_of_controlnet_that_only_others_train(
    of_others, options, modes, loss, vae, tiny_flux, embeddings, control, settings, data_dir
):
    """The latents beside those of diffusers, in torch."""
    from flux_common.loading import load_scheduler
    from flux_controlnet_plugin.controlnet import load_controlnet
    from flux_controlnet_plugin.images import Painter

    transformer = loss.transformer
    controlnet = load_controlnet(str(of_others(**options)), transformer_config=transformer.config)
    scheduler = load_scheduler(str(tiny_flux))
    models = {"transformer": transformer, "controlnet": controlnet, "scheduler": scheduler}
    painter = Painter(models, vae)
    reference = np.load(data_dir / "sample_others.npz")
    for mode in modes:
        expected = reference["embedder" if mode is None else f"union/{mode}"]
        asked = replace(settings, control_mode=mode)
        assert difference(painter.latents([embeddings], [control], asked), expected) < 2e-6
    # The comparison sees the control and its kind.
    assert difference(painter.latents([embeddings], [255 - control], asked), expected) > 1e-4
    assert len(modes) == 1 or difference(reference["union/0"], expected) > 1e-4


def test_images_that_are_made_at_once_are_those_made_one_by_one(
    painter, embeddings, control, settings, image
):
    other = embeddings[0] + 1, embeddings[1]
    made = painter.paint_all([embeddings, other], [control, 255 - control], settings)
    assert made.shape == (2, HEIGHT, WIDTH, 3)
    alone = painter.paint(other, 255 - control, replace(settings, number=settings.number + 1))
    for one, expected in zip(made, (image, alone), strict=True):
        assert np.abs(one.astype(int) - expected).max() <= 1
    assert np.abs(image.astype(int) - alone).max() > 1
