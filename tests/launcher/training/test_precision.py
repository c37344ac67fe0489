"""What parts are kept in and compute in; on the CPU, where bfloat16 is emulated."""

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture
def layer():
    from mindspore import mint

    return mint.nn.Linear(3, 2)


def output_dtype(layer, dtype):
    import mindspore as ms

    return layer(ms.Tensor(np.ones((1, 3)), dtype)).dtype


@pytest.mark.parametrize(
    ("name", "kept", "activations"),
    [
        ("no", "float32", "float32"),
        ("fp16", "float16", "float16"),
        ("bf16", "bfloat16", "float32"),
    ],
)
def test_cast_parameters(name, kept, activations, layer):
    import mindspore as ms

    from launcher.training.precision import activation_dtype, cast_parameters, dtype_of

    cast_parameters(layer, dtype_of(name))
    assert {p.dtype for p in layer.get_parameters()} == {getattr(ms, kept)}
    assert activation_dtype(layer) == getattr(ms, activations)
    assert output_dtype(layer, activation_dtype(layer)) == activation_dtype(layer)


@pytest.mark.parametrize(
    ("name", "computed"), [("no", "float32"), ("fp16", "float16"), ("bf16", "float32")]
)
def test_compute_in_leaves_the_parameters(name, computed, layer):
    import mindspore as ms

    from launcher.training.precision import activation_dtype, compute_in, dtype_of

    compute_in(layer, dtype_of(name))
    assert {p.dtype for p in layer.get_parameters()} == {ms.float32}
    assert activation_dtype(layer) == ms.float32
    assert output_dtype(layer, ms.float32) == getattr(ms, computed)


def test_cast_parameters_of_the_frozen_only(layer):
    import mindspore as ms

    from launcher.training.precision import cast_parameters

    layer.weight.requires_grad = False
    cast_parameters(layer, ms.float16, frozen_only=True)
    assert (layer.weight.dtype, layer.bias.dtype) == (ms.float16, ms.float32)


def test_nothing_is_emulated_on_an_npu(layer, monkeypatch):
    import mindspore as ms

    from launcher.training import device
    from launcher.training.precision import activation_dtype, cast_parameters, compute_in

    class Cell:
        def to_float(self, dtype):
            return "to_float", dtype

    monkeypatch.setattr(ms, "get_context", {"device_target": "Ascend"}.get)
    cast_parameters(layer, ms.bfloat16)
    assert activation_dtype(layer) == ms.bfloat16
    assert not device.is_emulated(layer)
    assert compute_in(Cell(), ms.bfloat16) == ("to_float", ms.bfloat16)
