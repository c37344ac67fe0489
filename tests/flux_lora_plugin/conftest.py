import numpy as np
import pytest

from flux_common.latents import image_ids

TEXT_LENGTH = 16
RANK = 4
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_mlp")


@pytest.fixture(scope="session")
def make_transformer(graph_mode, one_layer_flux):
    """make_transformer(adapters=True): a transformer as a run trains it, float32."""

    def make(adapters=True, seed=0):
        from flux_common.loading import load_transformer
        from flux_lora_plugin.adapters import add_adapters
        from flux_lora_plugin.recipe import configure_trainable
        from hooks.types import Models

        transformer = load_transformer(str(one_layer_flux))
        if adapters:
            add_adapters(transformer, TARGETS, rank=RANK, lora_alpha=2 * RANK, seed=seed)
        return configure_trainable(Models(transformer=transformer))["transformer"]

    return make


@pytest.fixture(scope="session")
def make_clip(graph_mode, one_layer_flux):
    """make_clip(): the tiny CLIP with adapters, float32."""

    def make():
        from flux_common.loading import load_text_encoder
        from flux_lora_plugin.adapters import CLIP_TARGETS, add_adapters
        from flux_lora_plugin.recipe import configure_trainable
        from hooks.types import Models

        clip = load_text_encoder(str(one_layer_flux))
        add_adapters(clip, CLIP_TARGETS, rank=RANK, lora_alpha=RANK, seed=0)
        return configure_trainable(Models(text_encoder=clip))["text_encoder"]

    return make


@pytest.fixture(scope="session")
def make_loss():
    """make_loss(transformer, clip=None)"""

    def make(transformer, clip=None):
        from flux_lora_plugin.loss import FluxLoraLoss

        return FluxLoraLoss(
            transformer,
            clip,
            text_length=TEXT_LENGTH,
            guidance_scale=3.5,
        )

    return make


@pytest.fixture(scope="session")
def micro_batch():
    """Arguments of the loss cell: two samples, 32x48 pixels (2x3 packed latents)."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    timesteps = np.array([750.0, 125.0], np.float32)
    latents, noise = normal(2, 6, 64), normal(2, 6, 64)
    weights = np.ones(2, np.float32)
    embeds = normal(2, TEXT_LENGTH, 32), normal(2, 32)
    return latents, noise, timesteps / 1000, timesteps, weights, *embeds, image_ids(2, 3)
