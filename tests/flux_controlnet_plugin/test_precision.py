"""Every cell of the article's three tables, in bf16 and fp16: as stored, and as seen in graphs."""

import functools

import pytest

from tests import precision_tables as tables

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(scope="module")
def seen(one_layer_flux, micro_batch):
    """seen(mixed_precision, policy, stage): (stored, computed) by part. Each graph is made once."""

    @functools.cache
    def of_encoders(mixed_precision, policy):
        from flux_controlnet_plugin.recipe import apply_precision

        models = tables.encoders(one_layer_flux)
        models = apply_precision(tables.config(mixed_precision, policy), models)
        return tables.report_of(models, tables.calls(models)).parts

    @functools.cache
    def of_networks(mixed_precision, policy):
        from flux_common.loading import load_transformer
        from flux_controlnet_plugin.controlnet import controlnet_from_transformer
        from flux_controlnet_plugin.loss import FluxControlNetLoss
        from flux_controlnet_plugin.recipe import apply_precision, configure_trainable
        from hooks.types import Models

        transformer = load_transformer(str(one_layer_flux))
        controlnet = controlnet_from_transformer(transformer, 1, 1)
        models = Models(transformer=transformer, controlnet=controlnet)
        models = configure_trainable(models)
        models = apply_precision(tables.config(mixed_precision, policy), models)
        sizes = dict(text_length=16, guidance_scale=3.5)
        loss = FluxControlNetLoss(controlnet, transformer, **sizes)
        return tables.report_of(models, [(loss, micro_batch, {})]).parts

    def of(mixed_precision, policy, stage):
        if stage == "precompute":  # B and C differ in what is trained
            return of_encoders(mixed_precision, "A" if policy == "A" else "B")
        return of_networks(mixed_precision, "C" if policy == "C" else "A")

    return of


@pytest.mark.parametrize("mixed_precision", ["bf16", "fp16"])
@pytest.mark.parametrize("policy", ["A", "B", "C"])
@pytest.mark.parametrize("part", ["vae", "text_encoder", "text_encoder_2"])
def test_what_encodes(mixed_precision, policy, part, seen):
    found = seen(mixed_precision, policy, "precompute")[part]
    half = part == "vae" or policy != "A"
    assert tables.stored(found) == (tables.HALF[mixed_precision] if half else "float32")
    assert tables.computed(found) == (tables.COMPUTED[mixed_precision] if half else "float32")
    assert found.trained == {}


@pytest.mark.parametrize("mixed_precision", ["bf16", "fp16"])
@pytest.mark.parametrize("policy", ["A", "B", "C"])
@pytest.mark.parametrize("part", ["transformer", "controlnet"])
def test_what_trains(mixed_precision, policy, part, seen):
    found = seen(mixed_precision, policy, "train")[part]
    half = part == "transformer" or policy == "C"
    assert tables.stored(found) == (tables.HALF[mixed_precision] if half else "float32")
    assert tables.computed(found) == tables.COMPUTED[mixed_precision]
    assert found.trained == (found.stored if part == "controlnet" else {})
