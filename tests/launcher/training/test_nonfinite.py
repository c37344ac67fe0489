"""Overflows put in known places are found there. float16 ends at 65504."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from launcher.training.nonfinite import diagnose
from launcher.training.step import Gradients
from tests.launcher.training.nonfinite_cells import (
    Between,
    CallsWithKeywords,
    Chain,
    Clipped,
    Fails,
    Gain,
    RootMeanSquare,
    Scale,
)

pytestmark = pytest.mark.usefixtures("graph_mode")


def filled(value, size=4):
    return np.full(size, value, np.float32)


def diagnose_chain(loss, value, size=4, loss_scale=1.0):
    return diagnose(loss, [filled(value, size)], loss.trainable_params(), loss_scale)


# Before the step


def test_an_input_is_named_by_its_argument():
    loss = Chain(Scale(1.0))
    labels = np.array([1.0, np.nan, np.inf], np.float32)
    report = diagnose(loss, [filled(1), labels], loss.trainable_params())
    assert report == "The input labels is not finite: 2 of 3 values."


def test_integer_inputs_are_passed_over():
    loss = Chain(Scale(1.0))
    report = diagnose(loss, [filled(1), np.arange(3, dtype=np.int32)], loss.trainable_params())
    assert report.startswith("Nothing was found")


@pytest.mark.parametrize("dtype", [ms.float32, ms.float16, ms.bfloat16])
@pytest.mark.parametrize("trained", [True, False])
def test_a_parameter_is_named(dtype, trained):
    loss = Chain(Scale(1.0), Gain())
    parameter = loss.layers[1].weight
    parameter.requires_grad = trained
    parameter.set_dtype(dtype)
    parameter.set_data(Tensor([np.nan], dtype))
    report = diagnose_chain(loss, 1)
    assert report == "The parameter layers.1.weight is not finite before the step: 1 of 1 values."


# Forward pass


def test_the_first_cell_that_overflows_is_named_with_its_path():
    loss = Chain(Scale(2.0), Scale(300.0), Scale(300.0), Scale(300.0))
    inputs = [np.array([1, -1, 1e-3, 0], np.float32)]
    report = diagnose(loss, inputs, loss.trainable_params())
    assert report == (
        "The first value that is not finite is the output of layers.2 (Scale): 2 of 4 values in "
        "float16. What went in was finite, up to 600."
    )


def test_a_cell_that_makes_nan_of_finite_values_is_named():
    report = diagnose_chain(Chain(RootMeanSquare(4), Scale(1.0)), 0)  # 0 / 0
    assert "is the output of layers.0 (RootMeanSquare): 4 of 4 values" in report


@pytest.mark.parametrize(
    ("after", "where"),
    [
        (False, "what layers.0 (Between) passes to layers.0.second (Scale)"),
        (True, "the output of layers.0 (Between), computed there and not in a sub-cell"),
    ],
)
def test_arithmetic_between_sub_cells_is_told_from_theirs(after, where):
    report = diagnose_chain(Chain(Between(after), Scale(1.0)), 1000)
    assert f"is {where}: 4 of 4 values in float16. What went in was finite, up to 1e+03." in report


def test_keyword_arguments_dicts_integers_and_none_are_seen_through():
    report = diagnose_chain(Chain(Scale(1.0), CallsWithKeywords()), 40000)
    assert "is the output of layers.1.inner (Keywords): 4 of 4 values in float16" in report


def test_a_value_that_vanishes_again_is_not_the_first_but_mentioned():
    mention = (
        " In the forward pass another value was not finite and vanished again, as when it is "
        "clipped: the output of layers.0.inner (Scale): 4 of 4 values in float16."
    )
    report = diagnose_chain(Chain(Clipped(300.0)), 1000)
    assert report.startswith("Nothing was found")
    assert mention in report
    report = diagnose_chain(Chain(Clipped(300.0), Scale(2.0)), 1000)
    assert "is the output of layers.1 (Scale): 4 of 4 values in float16" in report
    assert mention in report


def test_a_value_that_the_cells_around_it_return_is_the_first_whatever_becomes_of_it():
    report = diagnose_chain(Chain(CallsWithKeywords(), Clipped(1.0), Scale(2.0)), 40000)
    assert "is the output of layers.0.inner (Keywords): 4 of 4 values in float16" in report


# Backward pass


@pytest.mark.parametrize(("loss_scale", "layer"), [(0.5, 0), (1.0, 1), (256.0, 2)])
def test_the_first_gradient_that_overflows_is_named(loss_scale, layer):
    # Of the inputs, from the last layer to the first: 300, 300**2 and twice that, times the scale.
    loss = Chain(Scale(2.0), Scale(300.0), Scale(300.0))
    report = diagnose_chain(loss, 1e-4, loss_scale=loss_scale)
    gradients = [180000, 90000, 300]
    assert gradients[layer] * loss_scale > 65504
    assert layer == 2 or gradients[layer + 1] * loss_scale < 65504
    assert (
        f"At a loss scale of {loss_scale:g} the first gradient that is not finite is that of the "
        f"input of layers.{layer} (Scale): 4 of 4 values in float16."
    ) in report
    assert "In the end those of 1 of 1 trained parameters are not." in report


def test_gradients_that_are_finite_at_this_loss_scale_are_no_finding():
    loss = Chain(Scale(2.0), Scale(300.0), Scale(300.0))
    report = diagnose_chain(loss, 1e-4, loss_scale=0.25)  # 180000 / 4 < 65504
    assert report.startswith("Nothing was found")
    assert "at a loss scale of 0.25, the gradients of all 1 trained parameters" in report


def test_a_gradient_that_overflows_between_sub_cells_is_told_from_theirs():
    # 2 x of the square, times 0.5 of the second cell.
    report = diagnose_chain(Chain(Between(False)), 100, loss_scale=1000.0)
    assert (
        "that of the output of layers.0.first (Scale), within layers.0 (Between): 4 of 4 values"
    ) in report


def test_a_weights_gradient_can_overflow_by_itself():
    # A sum over 1000 elements: 1000 * 90 for the last weight. The gradients of the values are at
    # most 300**2, which overflows too, but later in the backward pass.
    loss = Chain(Scale(300.0), Scale(300.0), Gain())
    report = diagnose_chain(loss, 1e-3, size=1000)
    assert "is that of the parameter layers.2.weight. In the end those of 2 of 2 trained" in report


def test_gradient_checkpointing_changes_nothing():
    loss = Chain(Between(False), Scale(1.0))
    plain = diagnose_chain(loss, 100, loss_scale=1000.0)
    loss.layers[0].recompute()
    assert "that of the output of layers.0.first (Scale), within layers.0 (Between)" in plain
    assert diagnose_chain(loss, 100, loss_scale=1000.0) == plain


def test_a_loss_that_overflows_times_the_scale():
    report = diagnose_chain(Chain(Scale(1.0), dtype=ms.float32), 1e30, loss_scale=2.0**40)
    assert report == "The loss (4e+30) times the loss scale (1.09951e+12) is not finite."


# Cells that compute in another dtype than their parameters'


def test_what_a_cell_computes_in_float32_does_not_overflow_in_float16():
    """As in the graph; PyNative mode by itself casts there too."""
    loss = Chain(RootMeanSquare(4))
    loss.layers.to_float(ms.float16)
    report = diagnose_chain(loss, 1000)  # its square overflows
    assert report.startswith("Nothing was found: the loss (4)")

    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        assert float(loss(Tensor(filled(1000)))) == 0  # 1000 / sqrt(inf)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)


def test_casts_that_overflow_are_named():
    loss = Chain(Scale(100.0), RootMeanSquare(4), dtype=ms.float32)
    loss.layers[1].to_float(ms.float16)
    assert (
        "is an input of layers.1 (RootMeanSquare) cast to float16: 4 of 4 values in float16. What "
        "went in was finite, up to 1e+05."
    ) in diagnose_chain(loss, 1000)
    loss.layers[1].weight.set_data(Tensor([1, 1e5, 1, 1], ms.float32))
    assert (
        "is a parameter of layers.1 (RootMeanSquare) cast to float16: 1 of 4 values in float16. "
        "What went in was finite, up to 1e+05."
    ) in diagnose_chain(loss, 1)


# What is left behind


def state(loss):
    """All that diagnose changes for a while."""
    cells = [cell for _, cell in loss.cells_and_names()]
    return (
        ms.get_context("mode"),
        [len(cell._forward_pre_hook) + len(cell._forward_hook) for cell in cells],
        [cell.mixed_precision_type for cell in cells],
        ["weight" in cell.__dict__ for cell in cells],
    )


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_hooks_and_casts_are_gone_and_the_mode_is_restored(mode):
    loss = Chain(RootMeanSquare(4), Scale(300.0))
    loss.layers.to_float(ms.float16)
    ms.set_context(mode=mode)
    try:
        before = state(loss)
        assert diagnose_chain(loss, 1).startswith("Nothing was found")
        assert diagnose_chain(loss, 1, loss_scale=2.0**16).startswith("The forward pass is finite")
        assert diagnose_chain(loss, 1e9).startswith("The first value that is not finite")
        assert state(loss) == before
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)


def test_the_same_if_the_forward_pass_raises():
    loss = Chain(Scale(1.0), Fails())
    loss.layers.to_float(ms.float16)
    before = state(loss)
    with pytest.raises(RuntimeError, match="weight is Float16"):
        diagnose_chain(loss, 1)
    assert state(loss) == before
    loss.layers = loss.layers[:1]
    assert diagnose_chain(loss, 1).startswith("Nothing was found")


def test_a_compiled_step_goes_on_as_before():
    loss = Chain(RootMeanSquare(4), Scale(300.0))
    loss.layers.to_float(ms.float16)
    step = Gradients(loss, loss.trainable_params())
    x = np.array([1, 2, 3, 5], np.float32)

    def run():
        value, gradients = step(Tensor(x))
        return value.asnumpy(), *(gradient.asnumpy() for gradient in gradients)

    first = run()
    assert diagnose(loss, [x], loss.trainable_params()).startswith("Nothing was found")
    for a, b in zip(first, run(), strict=True):
        np.testing.assert_array_equal(a, b)


# FLUX


def test_a_layer_of_a_flux_controlnet_is_named(tiny_flux):
    from flux_common.latents import image_ids
    from flux_common.loading import load_transformer
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from flux_controlnet_plugin.loss import FluxControlNetLoss
    from tests.controlnets import fill_zero_layers

    transformer = load_transformer(str(tiny_flux))
    controlnet = controlnet_from_transformer(transformer, 1, 1)
    fill_zero_layers(controlnet)
    for parameter in transformer.get_parameters():
        parameter.requires_grad = False
        parameter.set_dtype(ms.float16)
    controlnet.to_float(ms.float16)
    loss = FluxControlNetLoss(controlnet, transformer, text_length=16, guidance_scale=3.5)
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((2, 6, 64)).astype(np.float32) for _ in range(3)]
    text = [rng.standard_normal(shape).astype(np.float32) for shape in [(2, 16, 32), (2, 32)]]
    timesteps = np.array([750, 125], np.float32)
    inputs = [*images, timesteps / 1000, timesteps, np.ones(2, np.float32), *text, image_ids(2, 3)]
    name = "transformer_blocks.0.ff.net.0.proj"
    weight = controlnet.parameters_dict()[f"controlnet.{name}.weight"]
    weight.set_data(weight * 3e5)
    assert np.abs(weight.asnumpy()).max() < 65504
    report = diagnose(loss, inputs, loss.trainable_params(), 2.0**16)
    assert f"is the output of controlnet.{name} (Linear)" in report
