"""The compiled step against numpy in float64, on a linear model."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from launcher.training.optim import AdamW, build_optimizer
from launcher.training.step import TrainStep, dynamic_loss_scaler

pytestmark = pytest.mark.usefixtures("graph_mode")

BETA1, BETA2, EPS, DECAY, CLIP = 0.9, 0.999, 1e-8, 0.1, 0.5
START = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class LinearLoss(nn.Cell):
    """mean((x @ weight - y)**2)"""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(START), name="weight")

    def construct(self, x, y):
        return ops.square(ops.matmul(x, self.weight) - y).mean()


class Reference:
    """The same training in float64: gradient, torch's clipping, torch's AdamW."""

    def __init__(self):
        self.weight = START.astype(np.float64)
        self.m = self.v = np.zeros_like(self.weight)
        self.t = 0

    def step(self, micro_batches, lr, clip=CLIP):
        losses, gradient = [], 0
        for x, y in micro_batches:
            error = x.astype(np.float64) @ self.weight - y
            losses.append((error**2).mean())
            gradient = gradient + 2 * x.T @ error / error.size / len(micro_batches)
        norm = np.sqrt((gradient**2).sum())
        if clip is not None:
            gradient = gradient * min(1, clip / (norm + 1e-6))
        self.t += 1
        self.weight = self.weight * (1 - lr * DECAY)
        self.m = BETA1 * self.m + (1 - BETA1) * gradient
        self.v = BETA2 * self.v + (1 - BETA2) * gradient**2
        corrected_m = self.m / (1 - BETA1**self.t)
        corrected_v = self.v / (1 - BETA2**self.t)
        self.weight = self.weight - lr * corrected_m / (np.sqrt(corrected_v) + EPS)
        return np.mean(losses), norm


def batches(seed, count=1):
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((5, 4)).astype(np.float32),
            rng.standard_normal((5, 3)).astype(np.float32),
        )
        for _ in range(count)
    ]


def make_step(**options):
    loss = LinearLoss()
    optimizer = AdamW(
        loss.trainable_params(), beta1=BETA1, beta2=BETA2, eps=EPS, weight_decay=DECAY
    )
    return TrainStep(loss, optimizer, **options), loss


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("clip", [None, CLIP])
def test_twenty_steps_equal_torchs_adamw_and_clipping(accumulation_steps, clip):
    step, loss = make_step(max_grad_norm=clip, accumulation_steps=accumulation_steps)
    reference = Reference()
    for t in range(20):
        micro_batches = batches(t, accumulation_steps)
        lr = 1e-2 * (t + 1) / 20
        value, norm, applied = step(micro_batches, lr)
        expected_value, expected_norm = reference.step(micro_batches, lr, clip)
        assert applied
        assert value == pytest.approx(expected_value, rel=1e-5)
        assert norm == pytest.approx(expected_norm, rel=1e-5)
    np.testing.assert_allclose(loss.weight.asnumpy(), reference.weight, rtol=0, atol=2e-6)


def test_first_step_has_no_rounding_of_the_bias_correction():
    step, loss = make_step()
    reference = Reference()
    step(batches(0), 1.0)
    reference.step(batches(0), 1.0, clip=None)
    np.testing.assert_allclose(loss.weight.asnumpy(), reference.weight, rtol=2e-6, atol=2e-6)


def test_overflow_skips_the_update_and_halves_the_scale():
    scaler = dynamic_loss_scaler()
    step, loss = make_step(loss_scaler=scaler)
    (x, y), *_ = batches(0)
    _, norm, applied = step([(x * np.float32(1e30), y)], 1e-2)
    assert not applied
    assert not np.isfinite(norm)
    np.testing.assert_array_equal(loss.weight.asnumpy(), START)
    assert float(scaler.scale_value) == 2.0**15


def test_loss_scaling_changes_neither_loss_nor_update():
    step, loss = make_step(max_grad_norm=CLIP, loss_scaler=dynamic_loss_scaler())
    reference = Reference()
    value, norm, applied = step(batches(0), 1e-2)
    expected_value, expected_norm = reference.step(batches(0), 1e-2)
    assert applied
    assert value == pytest.approx(expected_value, rel=1e-5)
    assert norm == pytest.approx(expected_norm, rel=1e-5)
    np.testing.assert_allclose(loss.weight.asnumpy(), reference.weight, rtol=0, atol=1e-6)


def test_an_update_continues_from_saved_state_bit_for_bit():
    """Weights, optimizer and loss scale, in another step; an overflow lies in between."""

    def train(step, numbers):
        for number in numbers:
            factor = np.float32(1e30 if number == 1 else 1)
            step([(x * factor, y) for x, y in batches(number)], 1e-2)

    whole, loss = make_step(max_grad_norm=CLIP, loss_scaler=dynamic_loss_scaler())
    train(whole, range(5))

    first, first_loss = make_step(max_grad_norm=CLIP, loss_scaler=dynamic_loss_scaler())
    train(first, range(3))
    saved = {name: parameter.asnumpy() for name, parameter in first.state().items()}
    assert saved["loss_scale"] == 2.0**15
    assert saved["loss_scale_counter"] == 1
    assert {"adamw_m.weight", "adamw_v.weight"} < saved.keys() and "weight" not in saved

    second, second_loss = make_step(max_grad_norm=CLIP, loss_scaler=dynamic_loss_scaler())
    second_loss.weight.set_data(ms.Tensor(first_loss.weight.asnumpy()))
    for name, parameter in second.state().items():
        parameter.set_data(ms.Tensor(saved[name]))
    train(second, range(3, 5))
    np.testing.assert_array_equal(second_loss.weight.asnumpy(), loss.weight.asnumpy())
    for name, parameter in whole.state().items():
        np.testing.assert_array_equal(parameter.asnumpy(), second.state()[name].asnumpy())


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_gradients_of_half_precision_are_added_in_float32(dtype):
    """One of 2048 and sixteen of 1: float16 and bfloat16 would lose the small ones."""
    from launcher.training.optimizers.adamw_upcast import AdamWUpcast

    class SumLoss(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = ms.Parameter(ms.Tensor(np.ones(3), dtype), name="weight")

        def construct(self, x):
            return (self.weight.astype(ms.float32) * x).sum()

    loss = SumLoss()
    step = TrainStep(loss, AdamWUpcast(loss.trainable_params(), 1.0), accumulation_steps=17)
    gradients = [2048.0] + [1.0] * 16
    _, norm, _ = step([[np.full(3, gradient, np.float32)] for gradient in gradients], 1e-2)
    assert norm == pytest.approx(np.sqrt(3) * np.mean(gradients), rel=1e-6)
    assert loss.weight.dtype == dtype and not np.any(loss.weight.astype(ms.float32).asnumpy() == 1)


def test_a_float16_gradient_is_unscaled_in_float32():
    """1e-9 is zero in float16, but not at a loss scale of 65536."""
    from launcher.training.optimizers.adamw_upcast import AdamWUpcast

    class SmallLoss(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = ms.Parameter(ms.Tensor(np.ones(3), ms.float16), name="weight")

        def construct(self, x):
            return (self.weight.astype(ms.float32) * x).sum()

    loss = SmallLoss()
    optimizer = AdamWUpcast(loss.trainable_params(), 1.0, eps=1e-12)
    step = TrainStep(loss, optimizer, loss_scaler=dynamic_loss_scaler())
    _, norm, applied = step([[np.full(3, 1e-9, np.float32)]], 0.25)
    assert applied
    assert norm == pytest.approx(np.sqrt(3) * 1e-9, rel=1e-3)
    # The first step of AdamW is the rate, whatever the gradient is, and decay.
    moved = loss.weight.astype(ms.float32).asnumpy()
    np.testing.assert_allclose(moved, 0.75 - 0.25 * 1e-2, rtol=2e-3)


def test_adam_weight_decay_moves_the_parameters_at_the_scheduled_rate():
    loss = LinearLoss()
    optimizer = build_optimizer(
        "adam_weight_decay",
        loss.trainable_params(),
        beta1=BETA1,
        beta2=BETA2,
        eps=EPS,
        weight_decay=0.0,
    )
    step = TrainStep(loss, optimizer)
    step(batches(0), 0.0)
    np.testing.assert_array_equal(loss.weight.asnumpy(), START)
    step(batches(0), 1e-3)
    moved = np.abs(loss.weight.asnumpy() - START)
    # Without bias correction the second step of a constant gradient is
    # lr * (1 - 0.9**2) / sqrt(1 - 0.999**2) = 4.25 lr.
    np.testing.assert_allclose(moved, 4.25e-3, rtol=1e-2)
