"""Properties of the ControlNet's loss. Its numbers are compared with diffusers' in
tests/benchmarks/test_parity.py."""

import numpy as np
import pytest

from tests.gradients import gradients_by_name

pytestmark = pytest.mark.usefixtures("graph_mode")


def differentiate(loss, loss_scaler=None):
    """`gradients_by_name`, by the names of the ControlNet's parameters."""
    names = [name for name, p in loss.controlnet.parameters_and_names() if p.requires_grad]
    return gradients_by_name(loss, names, loss_scaler)


@pytest.fixture(scope="session")
def fresh_and_filled(make_loss, micro_batch):
    """Of one ControlNet before and after its zero layers are filled: one graph."""
    from tests.controlnets import fill_zero_layers

    loss = make_loss(1, 1)
    run = differentiate(loss)
    fresh = run(micro_batch)
    fill_zero_layers(loss.controlnet)
    return fresh, run(micro_batch)


@pytest.fixture(scope="session")
def fresh(fresh_and_filled):
    return fresh_and_filled[0]


@pytest.fixture(scope="session")
def filled(fresh_and_filled):
    return fresh_and_filled[1]


def predict(loss, micro_batch, with_controlnet):
    from mindspore import Tensor

    from benchmarks.parity_cells import Predict

    return Predict(loss, with_controlnet)(*map(Tensor, micro_batch)).asnumpy()


def test_a_fresh_controlnet_leaves_the_base_models_prediction_bit_for_bit(make_loss, micro_batch):
    loss = make_loss(1, 1)
    base = predict(loss, micro_batch, with_controlnet=False)
    assert np.ptp(base) > 0.1
    np.testing.assert_array_equal(predict(loss, micro_batch, with_controlnet=True), base)


def test_at_first_only_the_zero_layers_get_gradients(fresh):
    _, gradients = fresh
    moved = {name for name, gradient in gradients.items() if np.any(gradient)}
    expected = {
        name
        for name in gradients
        if name.startswith(("controlnet_blocks.", "controlnet_single_blocks."))
    }
    assert moved == expected
    assert len(gradients) > len(expected) > 0


def test_filled_zero_layers_let_gradients_through_to_every_parameter(filled):
    _, gradients = filled
    assert [name for name, gradient in gradients.items() if not np.any(gradient)] == []


def test_without_single_blocks_the_last_text_stream_gets_no_gradients(make_loss, micro_batch):
    # Nothing follows that would use what the last double block does to the text tokens: neither
    # its output (six parameters) nor the queries that would make it (three).
    _, gradients = differentiate(make_loss(1, 0, filled=True))(micro_batch)
    block = "transformer_blocks.0."
    assert {name for name, gradient in gradients.items() if not np.any(gradient)} == {
        f"{block}attn.to_add_out.weight",
        f"{block}attn.to_add_out.bias",
        f"{block}ff_context.net.0.proj.weight",
        f"{block}ff_context.net.0.proj.bias",
        f"{block}ff_context.net.2.weight",
        f"{block}ff_context.net.2.bias",
        f"{block}attn.add_q_proj.weight",
        f"{block}attn.add_q_proj.bias",
        f"{block}attn.norm_added_q.weight",
    }


def test_weights_multiply_each_samples_squared_error(make_loss, micro_batch):
    loss = make_loss(1, 1)
    from mindspore import Tensor

    def value(weights):
        arrays = (*micro_batch[:5], np.array(weights, np.float32), *micro_batch[6:])
        return float(loss(*map(Tensor, arrays)))

    first, second, both = value([1, 0]), value([0, 1]), value([1, 1])
    assert both == pytest.approx(first + second, rel=1e-6)
    assert value([2, 0.5]) == pytest.approx(2 * first + 0.5 * second, rel=1e-6)


def test_a_graph_serves_every_shape_of_as_many_tokens(make_loss, micro_batch):
    """Exactly as a cell into which the positions are built."""
    from mindspore import Tensor, nn

    from flux_common.latents import image_ids

    class BuiltIn(nn.Cell):
        def __init__(self, loss, ids):
            super().__init__(auto_prefix=False)
            self.loss = loss
            self.ids = Tensor(ids)

        def construct(self, *inputs):
            return self.loss(*inputs, self.ids)

    loss = make_loss(1, 0, filled=True)
    wide, high, square = image_ids(2, 3), image_ids(3, 2), image_ids(2, 2)
    few = [a[:, :4] if a.shape[1:] == (6, 64) else a for a in micro_batch[:-1]]
    graphs, values = [], []
    for inputs, ids in ((micro_batch[:-1], wide), (micro_batch[:-1], high), (few, square)):
        values.append(float(loss(*map(Tensor, (*inputs, ids)))))
        graphs.append(len(loss.compile_cache))
        assert values[-1] == float(BuiltIn(loss, ids)(*map(Tensor, inputs)))
    assert graphs == [1, 1, 2]
    assert len(set(values)) == 3


def test_half_precision_agrees_with_float32(make_loss, micro_batch, filled, one_layer_flux):
    """float16 with its real kernels: parameters of the ControlNet stay float32."""
    import mindspore as ms

    from flux_common.loading import load_transformer
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from flux_controlnet_plugin.loss import FluxControlNetLoss
    from launcher.training.freeze import set_trainable
    from launcher.training.precision import cast_frozen, cast_trained
    from launcher.training.step import dynamic_loss_scaler

    full = make_loss(1, 1, filled=True)
    half = load_transformer(str(one_layer_flux))
    controlnet = controlnet_from_transformer(half, 1, 1)
    for p, q in zip(controlnet.get_parameters(), full.controlnet.get_parameters(), strict=True):
        p.set_data(q.value())
    set_trainable(half, False)
    cast_frozen(half, ms.float16)
    cast_trained(controlnet, ms.float32, ms.float16)
    loss = FluxControlNetLoss(controlnet, half, text_length=16, guidance_scale=3.5)
    value, gradients = differentiate(loss, dynamic_loss_scaler())(micro_batch)
    expected_value, expected = filled
    assert value == pytest.approx(expected_value, rel=2e-3)
    assert all(p.dtype == ms.float32 for p in controlnet.get_parameters())
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        difference = np.linalg.norm(gradient - expected[name]) / np.linalg.norm(expected[name])
        assert difference < 0.05, name
