import numpy as np
import pytest

from flux_common.latents import image_ids

TEXT_LENGTH = 16


@pytest.fixture(scope="session")
def transformer(graph_mode, one_layer_flux):
    """A double and a single block."""
    return load_frozen(one_layer_flux)


def load_frozen(pipeline):
    """A transformer, frozen, in float32."""
    from flux_common.loading import load_transformer
    from launcher.training.freeze import set_trainable

    transformer = load_transformer(str(pipeline))
    set_trainable(transformer, False)
    return transformer


@pytest.fixture(scope="session")
def micro_batch():
    """Arguments of the loss cell: two samples, 32x48 pixels (2x3 packed latents)."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    timesteps = np.array([750.0, 125.0], np.float32)
    return (
        normal(2, 6, 64),
        normal(2, 6, 64),
        normal(2, 6, 64),
        timesteps / 1000,
        timesteps,
        np.ones(2, np.float32),
        normal(2, TEXT_LENGTH, 32),
        normal(2, 32),
        image_ids(2, 3),
    )


@pytest.fixture(scope="session")
def make_loss(transformer):
    """make_loss(double, single) around a fresh ControlNet."""

    def make(double, single, filled=False, transformer=transformer):
        from flux_controlnet_plugin.controlnet import controlnet_from_transformer
        from flux_controlnet_plugin.loss import FluxControlNetLoss
        from tests.controlnets import fill_zero_layers

        controlnet = controlnet_from_transformer(transformer, double, single)
        if filled:
            fill_zero_layers(controlnet)
        return FluxControlNetLoss(
            controlnet,
            transformer,
            text_length=TEXT_LENGTH,
            guidance_scale=3.5,
        )

    return make
