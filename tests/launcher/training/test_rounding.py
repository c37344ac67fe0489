"""Stochastic rounding: unbiased, exact where it can be, and a function of its arguments."""

import mindspore as ms
import ml_dtypes
import numpy as np
import pytest
from mindspore import nn

from launcher.training.optim import build_optimizer
from launcher.training.optimizers.rounding import counters, round_stochastically, uniform

pytestmark = pytest.mark.usefixtures("graph_mode")

DRAWS = 2**14
NUMPY = {ms.float16: np.float16, ms.bfloat16: ml_dtypes.bfloat16}
VALUES = [1 / 3, -1 / 3, 0.9999, 1.0001, 1.001, -1.999, 3e-5, -7e-8, 1234.5, 4097.3, 1e-20]
EXACT = [0.0, 1.0, -0.5, 2.0**-14, 2.0**-20, 640.0, -(2.0**15)]


class Draw(nn.Cell):
    """The numbers of one parameter at a step."""

    def __init__(self, seed, name, shape):
        super().__init__()
        parameter = ms.Parameter(ms.Tensor(np.zeros(shape), ms.float16), name=name)
        self.left, self.right, self.columns = counters(seed, parameter)

    def construct(self, step):
        return uniform(self.left, self.right, self.columns, step)


def draw(step, seed=1, name="weight", shape=(128, 256)):
    return Draw(seed, name, shape)(ms.Tensor(step, ms.int32)).asnumpy()


class Round(nn.Cell):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def construct(self, value, chance):
        return round_stochastically(value, self.dtype, chance)


@pytest.fixture(scope="module")
def chances():
    """`[DRAWS, 1]`, from the generator under test."""
    return draw(7, shape=(DRAWS,)).reshape(-1, 1)


@pytest.mark.parametrize("dtype", NUMPY)
def test_rounding_is_unbiased_between_neighbours_and_exact(dtype, chances):
    values = np.array(VALUES + EXACT, np.float32)
    every = np.broadcast_to(values, (DRAWS, len(values)))
    rounded = Round(dtype)(ms.Tensor(every), ms.Tensor(np.broadcast_to(chances, every.shape)))
    rounded = rounded.asnumpy()

    half = NUMPY[dtype]
    np.testing.assert_array_equal(rounded, rounded.astype(half).astype(np.float32))
    nearest = values.astype(half)
    for column, value, near in zip(rounded.T, values, nearest):
        if float(near) == value:
            np.testing.assert_array_equal(column, value)
            continue
        away = np.nextafter(near, half(np.inf if value > float(near) else -np.inf))
        neighbours = sorted((float(near), float(away)))
        gap = neighbours[1] - neighbours[0]
        assert set(column.astype(np.float64)) <= set(neighbours)
        up = (value - neighbours[0]) / gap
        deviation = np.sqrt(up * (1 - up) / DRAWS)
        mean = (column.astype(np.float64).mean() - neighbours[0]) / gap
        assert mean == pytest.approx(up, abs=4 * deviation + 2.0**-16), value


def test_every_number_is_uniform_and_unlike_its_neighbours():
    numbers = draw(0)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.bincount((numbers * 256).astype(int).ravel(), minlength=256)
    # chi-square with 255 degrees of freedom: 255 +- 23
    assert ((counts - 128) ** 2 / 128).sum() < 255 + 4 * 23
    centred = numbers - 0.5
    others = [
        np.roll(centred, 1, axis=0),
        np.roll(centred, 1, axis=1),
        np.roll(centred, 16, axis=1),
        draw(1) - 0.5,
        draw(2**16) - 0.5,
        draw(0, seed=2) - 0.5,
        draw(0, name="bias") - 0.5,
    ]
    for other in others:
        correlation = (centred * other).mean() * 12
        assert abs(correlation) < 4 / np.sqrt(numbers.size)


def test_the_optimizer_takes_the_numbers_of_its_step():
    start = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
    start = start.astype(ml_dtypes.bfloat16).astype(np.float32)
    parameter = ms.Parameter(ms.Tensor(start, ms.bfloat16), name="weight")
    optimizer = build_optimizer(
        "adamw_upcast", [parameter], beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
        stochastic_rounding=True, seed=5,
    )  # fmt: skip
    optimizer.learning_rate.set_data(ms.Tensor(1e-3, ms.float32))
    gradient = ms.Tensor(np.ones_like(start))
    expected = start
    rounding = Round(ms.bfloat16)
    for step in (1, 2, 3):
        optimizer((gradient,))
        chance = draw(step, seed=5, shape=start.shape)
        moved = expected - np.float32(1e-3)
        expected = rounding(ms.Tensor(moved), ms.Tensor(chance)).asnumpy()
        actual = parameter.astype(ms.float32).asnumpy()
        # A last bit of the float32 update may tip one in 2**13.
        assert (actual != expected).mean() < 0.01
        expected = actual
