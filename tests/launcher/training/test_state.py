"""What a checkpoint holds is all there is: a step that goes on from one does what the undisturbed
one does, bit for bit, with every optimizer. And the moving average against numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from hooks.types import Models
from launcher.checkpointing import Contents
from launcher.training import checkpoint
from launcher.training.ema import Ema, decay_at
from launcher.training.errors import UserError
from launcher.training.optim import build_optimizer
from launcher.training.step import TrainStep, dynamic_loss_scaler

pytestmark = pytest.mark.usefixtures("graph_mode")

DECAY = 0.6


class Net(nn.Cell):
    """A matrix and a bias, which the optimizers treat differently."""

    def __init__(self, dtype):
        super().__init__()
        rng = np.random.default_rng(0)
        self.matrix = ms.Parameter(ms.Tensor(rng.standard_normal((4, 3)), dtype), name="matrix")
        self.bias = ms.Parameter(ms.Tensor(rng.standard_normal(3), dtype), name="bias")

    def construct(self, x):
        x = ops.matmul(x, self.matrix.astype(ms.float32)) + self.bias.astype(ms.float32)
        return ops.square(x).mean()


class Training:
    """A step with everything that has a state."""

    def __init__(self, name, dtype, scaled=False, averaged=True, **options):
        self.net = Net(dtype)
        parameters = list(self.net.trainable_params())
        optimizer = build_optimizer(
            name, parameters, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, **options
        )
        scaler = dynamic_loss_scaler() if scaled else None
        self.step = TrainStep(self.net, optimizer, max_grad_norm=1.0, loss_scaler=scaler)
        self.ema = Ema(parameters, DECAY) if averaged else None
        self.contents = Contents.of(Models(net=self.net), self.step, self.ema)

    def train(self, numbers):
        for number in numbers:
            rng = np.random.default_rng(number)
            x = rng.standard_normal((5, 4)).astype(np.float32)
            overflows = self.step.loss_scale is not None and number == 2
            _, _, applied = self.step([[x * np.float32(1e30 if overflows else 1)]], 1e-2)
            assert applied is not overflows
            if applied and self.ema is not None:
                self.ema.update(number)

    def values(self):
        return {name: t.asnumpy().tobytes() for name, t in self.contents.tensors.items()}

    def save(self, folder):
        arrays = {name: t.asnumpy() for name, t in self.contents.tensors.items()}
        return checkpoint.read(checkpoint.write(folder, 3, arrays, {}))


def test_averages_that_are_begun_begin_with_the_checkpoints_weights(tmp_path):
    before = Training("adamw_bf16", ms.bfloat16, averaged=False)
    before.train([1, 2, 3])
    now = Training("adamw_bf16", ms.bfloat16)
    assert now.contents.read(before.save(tmp_path)) == len(before.contents.tensors)
    values = now.contents.tensors
    for name in ("net.matrix", "net.bias"):
        average, weight = values[f"ema.{name}"], values[f"weights.{name}"]
        assert average.dtype == ms.float32
        np.testing.assert_array_equal(
            average.asnumpy(), weight.astype(ms.float32).asnumpy(), strict=True
        )
    assert now.values().items() >= before.values().items()


def test_averages_that_are_no_longer_kept_are_left_out(tmp_path):
    before = Training("adamw", ms.float32)
    before.train([1, 2, 3])
    now = Training("adamw", ms.float32, averaged=False)
    assert now.contents.read(before.save(tmp_path)) == len(now.contents.tensors)
    assert now.values().items() <= before.values().items()


@pytest.mark.parametrize(
    "name, dtype, options",
    [
        ("adamw", ms.float32, {"scaled": True}),
        ("adam_weight_decay", ms.float32, {}),
        ("adamw_bf16", ms.bfloat16, {}),
        ("adamw_upcast", ms.bfloat16, {"stochastic_rounding": True}),
        ("adamw_upcast", ms.float16, {"stochastic_rounding": True, "seed": 3}),
        ("came", ms.float32, {}),
        ("muon", ms.float32, {}),
    ],
)
def test_a_step_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, name, dtype, options):
    whole = Training(name, dtype, **options)
    whole.train([1, 2, 3])
    saved = whole.save(tmp_path)
    at_three = whole.values()
    whole.train([4, 5])
    assert whole.values() != at_three

    second = Training(name, dtype, **options)
    assert second.values() != at_three
    assert second.contents.read(saved) == len(at_three)
    assert second.values() == at_three
    second.train([4, 5])
    assert second.values() == whole.values()


def test_a_checkpoint_of_another_optimizer_lists_what_is_missing_and_left_over(tmp_path):
    saved = Training("adamw", ms.float32).save(tmp_path)
    with pytest.raises(UserError) as caught:
        Training("came", ms.float32).contents.read(saved)
    text = str(caught.value)
    assert "is of another model or optimizer" in text
    assert "optimizer." in text and "config.yaml" in text


def test_the_average_is_that_of_numpy():
    net = Net(ms.float32)
    ema = Ema(list(net.trainable_params()), DECAY)
    rng = np.random.default_rng(1)
    expected = None
    for step in range(1, 21):
        weight = rng.standard_normal((4, 3)).astype(np.float32)
        net.matrix.set_data(ms.Tensor(weight))
        ema.update(step)
        # As in diffusers' EMAModel: (1 + n) / (10 + n) with n = step - 1, at most the decay.
        n = step - 1
        decay = min(DECAY, (1 + n) / (10 + n)) if n else 0.0
        expected = weight if n == 0 else expected + (1 - decay) * (weight - expected)
        average = ema.averages()[id(net.matrix)].asnumpy()
        np.testing.assert_allclose(average, expected, rtol=0, atol=1e-6)


def test_the_average_of_half_precision_is_float32():
    net = Net(ms.float16)
    ema = Ema(list(net.trainable_params()), 0.9)
    ema.update(1)
    (average, _) = ema.averages().values()
    assert average.dtype == ms.float32
    net.matrix.set_data(net.matrix + ms.Tensor(0.001, ms.float16))
    before = average.asnumpy().copy()
    ema.update(2)  # by 9/11 of a thousandth: less than half a unit of float16 near 1
    assert np.abs(average.asnumpy() - before).max() > 1e-4


def test_the_decay_rises_to_its_limit():
    assert decay_at(1, 0.999) == 0.0
    assert decay_at(2, 0.999) == pytest.approx(2 / 11)
    assert decay_at(100_000, 0.999) == 0.999
