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
def test_a_frozen_layer_is_kept_and_computes_in_one_dtype(name, kept, activations, layer):
    import mindspore as ms

    from launcher.training.freeze import freeze
    from launcher.training.precision import activation_dtype, cast_frozen, dtype_of

    freeze([layer])
    cast_frozen(layer, dtype_of(name))
    assert {p.dtype for p in layer.get_parameters()} == {getattr(ms, kept)}
    assert activation_dtype(layer) == getattr(ms, activations)
    assert output_dtype(layer, activation_dtype(layer)) == activation_dtype(layer)


@pytest.mark.parametrize(
    ("name", "computed"), [("no", "float32"), ("fp16", "float16"), ("bf16", "float32")]
)
def test_a_trained_layer_is_kept_in_float32(name, computed, layer):
    import mindspore as ms

    from launcher.training.precision import activation_dtype, cast_trained, dtype_of

    cast_trained(layer, ms.float32, dtype_of(name))
    assert {p.dtype for p in layer.get_parameters()} == {ms.float32}
    assert activation_dtype(layer) == ms.float32
    assert output_dtype(layer, ms.float32) == getattr(ms, computed)


def test_a_trained_layer_in_half_precision(layer):
    import mindspore as ms

    from launcher.training.precision import activation_dtype, cast_trained

    cast_trained(layer, ms.float16, ms.float16)
    assert {p.dtype for p in layer.get_parameters()} == {ms.float16}
    assert output_dtype(layer, activation_dtype(layer)) == ms.float16


def test_trained_parameters_of_a_frozen_part_are_left_alone(layer):
    import mindspore as ms

    from launcher.training.precision import cast_frozen

    layer.weight.requires_grad = False
    cast_frozen(layer, ms.float16)
    assert (layer.weight.dtype, layer.bias.dtype) == (ms.float16, ms.float32)


def test_a_second_cast_replaces_the_first(layer):
    """Also back to float32, which MindSpore computes in only if told to."""
    import mindspore as ms

    from launcher.training.precision import cast_trained

    cast_trained(layer, ms.float32, ms.float16)
    cast_trained(layer, ms.float32, ms.float32)
    assert output_dtype(layer, ms.float32) == ms.float32


def test_nothing_is_emulated_on_an_npu(layer, monkeypatch):
    import mindspore as ms

    from launcher.training import device
    from launcher.training.freeze import freeze
    from launcher.training.precision import activation_dtype, cast_frozen, cast_trained

    asked = []
    monkeypatch.setattr(ms, "get_context", {"device_target": "Ascend"}.get)
    monkeypatch.setattr(type(layer), "to_float", lambda self, dtype: asked.append(dtype))
    cast_trained(layer, ms.float32, ms.bfloat16)
    assert asked == [ms.bfloat16]
    freeze([layer])
    cast_frozen(layer, ms.bfloat16)
    assert activation_dtype(layer) == ms.bfloat16
    assert not device.is_emulated(layer)


# The article's tables


@pytest.mark.parametrize("half", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("options", "text_encoders", "trained"),
    [
        ({}, "fp32", "fp32"),
        ({"text_encoders": "half"}, "half", "fp32"),
        ({"text_encoders": "half", "trainable_params": "half"}, "half", "half"),
    ],
    ids=["A", "B", "C"],
)
def test_a_policy_is_what_the_options_say(half, options, text_encoders, trained):
    import mindspore as ms

    from launcher.training.precision import Policy

    dtypes = {"fp32": ms.float32, "half": {"bf16": ms.bfloat16, "fp16": ms.float16}[half]}
    policy = Policy.of(half, **options)
    assert policy.half == dtypes["half"]
    assert policy.text_encoders == dtypes[text_encoders]
    assert policy.trained == dtypes[trained]
    assert policy.attention is None
