"""`x += y` in what is compiled."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from tests.launcher.training import in_place_cells

pytestmark = pytest.mark.usefixtures("graph_mode")


def test_the_operators_compute_what_numpys_do():
    x = np.arange(40, 52, dtype=np.float32).reshape(3, 4)
    y = np.arange(1, 5, dtype=np.float32)
    result = in_place_cells.Augmented()(Tensor(x), Tensor(y)).asnumpy()
    expected = (((x + y + 1 - y - 3) * y * 2 / y / 4) // y // 2) % y % 3
    np.testing.assert_array_equal(result, expected)
    assert len(np.unique(result)) > 2


def test_the_callers_tensor_stays_as_it_was():
    x = Tensor(np.ones((3, 4), np.float32))
    assert (in_place_cells.SumInPlace()(x).asnumpy() == 3).all()
    assert (x.asnumpy() == 1).all()


def test_half_precision_stays_half_precision():
    x, y = Tensor(np.full((3, 4), 60, np.float16)), Tensor(np.ones(4, np.float32))
    assert in_place_cells.Augmented()(x, y).dtype == ms.float16


def test_halves_of_integers_are_no_integers():
    for halves in in_place_cells.Halves()(Tensor(np.array([3, 4], np.int32))):
        np.testing.assert_array_equal(halves.asnumpy(), [1.5, 2])


def test_integers_stay_as_wide_as_they_were():
    x, y = Tensor(np.array([3, 4], np.int32)), Tensor(np.array([1, 2], np.int64))
    total = in_place_cells.Sum()(x, y)
    assert total.dtype == ms.int32
    np.testing.assert_array_equal(total.asnumpy(), [4, 6])


def test_what_is_compiled_next_takes_no_integers_for_side_effects(capfd):
    x = Tensor(np.ones((3, 4), np.float32))
    in_place_cells.SumInPlace()(x)
    _, gradient = ms.value_and_grad(in_place_cells.Part(), 0)(x)
    assert gradient.asnumpy().sum() == 12
    assert "side effect" not in capfd.readouterr().err
