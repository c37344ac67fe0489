"""Cells that are built without values and get them from files."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

VALUES = {
    "weight": np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3),
    "bias": np.array([1.0, 1e-3, 65504.0, 1 / 3], np.float32),
}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture
def dense(graph_mode, tmp_path):
    """A cell without values, to be read from a file."""
    from mindspore import nn
    from mindspore.nn.utils import no_init_parameters

    from launcher.training import weights

    def make(stored=np.float32):
        path = tmp_path / "model.safetensors"
        save_file({name: value.astype(stored) for name, value in VALUES.items()}, path)
        with no_init_parameters():
            cell = nn.Dense(3, 4)
        parameters = dict(cell.parameters_and_names())
        read = lambda: weights.read_into(parameters, [path])  # noqa: E731
        weights.defer(cell, weights.Origin((path,), {"units": 4}), read)
        return cell

    return make


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("kept", DTYPES)
def test_values_come_in_the_dtype_that_was_set(dense, stored, kept):
    import mindspore as ms

    from launcher.training import weights

    cell = dense(DTYPES[stored])
    for parameter in cell.get_parameters():
        parameter.set_dtype(getattr(ms, kept))
    weights.load([cell])
    for name, parameter in cell.parameters_and_names():
        assert parameter.dtype == getattr(ms, kept)
        expected = VALUES[name].astype(DTYPES[stored]).astype(DTYPES[kept])
        np.testing.assert_array_equal(weights.as_float32(parameter), expected.astype(np.float32))


def test_until_then_it_must_not_be_used(dense):
    from mindspore import nn

    from launcher.training import weights
    from launcher.training.step import TrainStep

    cell = dense()
    outer = nn.SequentialCell(nn.ReLU(), cell)
    with pytest.raises(RuntimeError, match=r"weights of Dense have not been read; call launcher\."):
        weights.require_loaded(outer)
    with pytest.raises(RuntimeError, match="have not been read"):
        TrainStep(outer, nn.SGD(outer.trainable_params(), 0.1))
    weights.load([outer])
    weights.require_loaded(outer)
    np.testing.assert_array_equal(cell.weight.asnumpy(), VALUES["weight"])


def test_it_is_read_once(dense):
    import mindspore as ms

    from launcher.training import weights

    cell = dense()
    weights.load([cell])
    cell.bias.set_data(ms.Tensor(np.zeros(4, np.float32)))
    weights.load([cell])
    assert not cell.bias.asnumpy().any()


def test_its_origin_stays_known(dense, tmp_path):
    from mindspore import nn

    from launcher.training import weights

    cell = dense()
    weights.load([cell])
    assert weights.origin_of(cell).files == (tmp_path / "model.safetensors",)
    assert weights.origin_of(nn.Dense(1, 1)) is None


def test_tokenizers_have_no_weights():
    from launcher.training import weights

    weights.require_loaded(object())
    weights.load([object()])


def test_zeros_in_the_parameters_dtype(graph_mode):
    import mindspore as ms

    from launcher.training import weights

    parameter = ms.Parameter(ms.Tensor(np.ones((2, 3)), ms.bfloat16), name="p")
    weights.set_to_zero(parameter)
    assert parameter.dtype == ms.bfloat16 and not weights.as_float32(parameter).any()
    assert weights.numpy_dtype(parameter) == ml_dtypes.bfloat16
