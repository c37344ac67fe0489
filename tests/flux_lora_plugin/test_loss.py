"""Properties of the LoRA recipe's loss. Its numbers are compared with diffusers' in
tests/benchmarks."""

import numpy as np
import pytest

from tests.gradients import gradients_by_name

pytestmark = pytest.mark.usefixtures("graph_mode")


def differentiate(loss, loss_scaler=None):
    """`gradients_by_name`, by the names of the adapters."""
    from flux_lora_plugin.adapters import parameters

    names = [f"transformer.{name}" for name in parameters(loss.transformer)]
    if loss.text_encoder is not None:
        names += [f"text_encoder.{name}" for name in parameters(loss.text_encoder)]
    return gradients_by_name(loss, names, loss_scaler)


def fill(cell, seed=1):
    """Give every B values, as training does."""
    import mindspore as ms

    from flux_lora_plugin.adapters import parameters

    rng = np.random.default_rng(seed)
    for name, parameter in parameters(cell).items():
        if ".lora_B." in name:
            value = 0.3 * rng.standard_normal(parameter.shape)
            parameter.set_data(ms.Tensor(value.astype(np.float32)))


@pytest.fixture(scope="session")
def trained(make_transformer):
    transformer = make_transformer()
    fill(transformer)
    return transformer


@pytest.fixture(scope="session")
def reference(trained, make_loss):
    """float32, compiled once"""
    return differentiate(make_loss(trained))


def test_with_b_at_zero_the_prediction_is_the_base_models_bit_for_bit(
    make_transformer, make_loss, micro_batch
):
    import mindspore as ms
    from mindspore import Tensor

    from benchmarks.parity_cells import PredictWithAdapters as Predict

    arrays = [Tensor(array) for array in micro_batch]
    base = Predict(make_loss(make_transformer(adapters=False)))(*arrays).asnumpy()
    assert np.ptp(base) > 0.1
    transformer = make_transformer()
    predict = Predict(make_loss(transformer))
    np.testing.assert_array_equal(predict(*arrays).asnumpy(), base)

    # ... and not so because the adapters have no part in it.
    fill(transformer)
    assert np.abs(predict(*arrays).asnumpy() - base).max() > 0.01
    for name, p in transformer.parameters_and_names():
        if ".lora_B." in name:
            p.set_data(ms.Tensor(np.zeros(p.shape, np.float32)))
    np.testing.assert_array_equal(predict(*arrays).asnumpy(), base)


def test_gradients_reach_every_adapter_and_nothing_else(reference, trained, micro_batch):
    _, gradients = reference(micro_batch)
    assert all(np.any(gradient) for gradient in gradients.values())
    trainable = {name for name, p in trained.parameters_and_names() if p.requires_grad}
    assert len(trainable) == len(gradients)
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable)


def test_half_precision_with_clip_in_the_step_agrees_with_float32(
    reference, make_transformer, make_clip, make_loss, micro_batch
):
    """float16 with its real kernels; CLIP runs on token ids inside the graph."""
    import mindspore as ms

    from flux_common.prompts import encode_clip
    from flux_lora_plugin.recipe import apply_precision
    from hooks.types import Models
    from launcher.training.step import dynamic_loss_scaler

    class Config:
        class precision:
            mixed_precision = "fp16"
            text_encoders = "half"
            trainable_params = "fp32"
            attention = "auto"

    transformer, clip = make_transformer(), make_clip()
    fill(transformer)
    fill(clip, seed=2)
    ids = np.full((2, 77), clip.config.eos_token_id, np.int32)
    ids[0, 1:5] = [5, 9, 7, 11]
    ids[1, 1:3] = [8, 6]
    pooled = encode_clip(clip, ids)  # float32, outside of the step
    expected_value, expected = reference((*micro_batch[:6], pooled, micro_batch[7]))

    models = apply_precision(Config, Models(transformer=transformer, text_encoder=clip))
    loss = make_loss(models["transformer"], models["text_encoder"])
    value, gradients = differentiate(loss, dynamic_loss_scaler())(
        (*micro_batch[:6], ids, micro_batch[7])
    )

    for name, p in (*transformer.parameters_and_names(), *clip.parameters_and_names()):
        assert p.dtype == (ms.float32 if ".lora_" in name else ms.float16), name
    assert value == pytest.approx(expected_value, rel=2e-3)
    for name, gradient in expected.items():
        difference = np.linalg.norm(gradients[name] - gradient) / np.linalg.norm(gradient)
        assert difference < 0.05, name
    of_clip = {n: g for n, g in gradients.items() if n.startswith("text_encoder.")}
    assert of_clip and all(np.any(gradient) for gradient in of_clip.values())
