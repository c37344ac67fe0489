"""Every substitute for a function or a layer, against torch or numpy, in graph mode."""

import numpy as np
import pytest

from tests.launcher.cpu.functions import FUNCTIONS


def relative(actual, expected):
    """Largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("float16", 4e-3)])
def test_function_and_gradient(name, dtype, tolerance, run_functions, reference):
    out, grads = run_functions(dtype)[name]
    assert relative(out, reference[f"function/{name}/out"]) < tolerance
    assert grads, name
    for index, grad in enumerate(grads):
        expected = reference[f"function/{name}/grad{index}"]
        assert relative(grad, expected) < 2 * tolerance, f"gradient of input {index}"


@pytest.mark.parametrize("size", [8, 16])
def test_the_gradient_of_padding_returns_however_often(graph_mode, size):
    """MindSpore's own did not, from about as many calls on as the image is high."""
    import mindspore as ms

    from tests.launcher.cpu import cells

    gradient = cells.PaddingGradient()
    image = ms.Tensor(np.ones((2, 32, size, size), np.float32))
    for _ in range(2 * size):
        assert gradient(image).asnumpy().shape == image.shape
    expected = np.ones((size, size), np.float32)
    np.testing.assert_array_equal(gradient(image).asnumpy()[0, 0], expected)


def test_what_is_not_padded_with_zeros(graph_mode):
    import mindspore as ms

    from tests.launcher.cpu import cells

    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    mirrored, twos, cut = (a.asnumpy() for a in cells.OtherPaddings()(ms.Tensor(image)))
    sides = ((0, 0), (0, 0), (1, 1), (1, 1))
    np.testing.assert_array_equal(mirrored, np.pad(image, sides, "reflect"))
    left = ((0, 0), (0, 0), (0, 0), (1, 0))
    np.testing.assert_array_equal(twos, np.pad(image, left, constant_values=2))
    np.testing.assert_array_equal(cut, image[..., 1:])


def test_tables(graph_mode, reference):
    import mindspore as ms
    from mindone.transformers.models.t5 import modeling_t5

    from tests.launcher.cpu import cells

    ids = np.array([[0, 0, 0], [0, 1, 2], [0, 37, 63], [0, 5, 111.5]], np.float32)
    attention = modeling_t5.T5Attention
    tables = cells.Tables(attention)(
        ms.Tensor(ids),
        ms.Tensor(reference["table/timesteps"]),
        ms.Tensor(reference["table/positions"], ms.int64),
    )
    cos, sin, timestep, odd, buckets, causal = (table.asnumpy() for table in tables)
    np.testing.assert_allclose(cos, reference["table/cos"], atol=3e-6)
    np.testing.assert_allclose(sin, reference["table/sin"], atol=3e-6)
    # At timestep 3500 one unit in the last place of a frequency is a phase of 2e-4.
    np.testing.assert_allclose(timestep, reference["table/timestep_embedding"], atol=3e-4)
    np.testing.assert_allclose(odd, reference["table/timestep_embedding_odd"], atol=3e-4)
    np.testing.assert_array_equal(buckets, reference["table/buckets"])
    np.testing.assert_array_equal(causal, reference["table/buckets_causal"])


def test_timestep_embedding_is_exact_within_the_schedule(graph_mode, reference):
    """Against float64: the phase at timestep 1000 is right to float32's own resolution."""
    import mindspore as ms
    from mindone.diffusers.models import embeddings

    timesteps = np.arange(0, 1001, 7, dtype=np.float32)
    out = embeddings.get_timestep_embedding(ms.Tensor(timesteps), 256, True, 0).asnumpy()
    frequencies = np.exp(-np.log(10000) * np.arange(128) / 128)
    angles = timesteps[:, None].astype(np.float64) * frequencies
    np.testing.assert_allclose(out, np.hstack([np.cos(angles), np.sin(angles)]), atol=1.5e-4)


def test_tensor_functions(graph_mode):
    import mindspore as ms

    from tests.launcher.cpu import cells

    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)
    v = np.array([1.0, 2.0, -0.5], np.float32)
    index = np.array([[1, 0], [0, 0]], np.int32)
    cell = cells.TensorFunctions()
    outputs = cell(ms.Tensor(x), ms.Tensor(v), ms.Tensor(index))
    expected = (
        np.arange(4),
        np.arange(1, 7, 2),
        np.linspace(0, 1, 5),
        np.stack([x, 2 * x], 1),
        x[0] - x[1],
        2 * x[:, :1] - x[:, 1:2],
        np.outer(v, 2 * v),
        np.full((2, 2), 1.5),
        np.full(3, 2.0),
        np.ones_like(x),
        np.repeat(x, 2, 1),
        np.repeat(x, 2),
        np.linalg.norm(x),
        np.linalg.norm(x, axis=-1, keepdims=True),
        x[index],
        cell.embedding.weight.asnumpy()[index],
        np.sum(x**2),
    )
    assert len(outputs) == len(expected)
    for out, want in zip(outputs, expected):
        assert out.shape == want.shape
        np.testing.assert_allclose(out.asnumpy(), want, rtol=1e-6)


def test_tensor_functions_have_gradients(graph_mode):
    """Sum over all outputs; by hand for ``x``, whose rows enter in several places."""
    import mindspore as ms

    from tests.launcher.cpu import cells

    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)
    v = np.array([1.0, 2.0, -0.5], np.float32)
    index = np.array([[1, 0], [0, 0]], np.int32)
    inputs = ms.Tensor(x), ms.Tensor(v), ms.Tensor(index)
    cell = cells.TensorFunctions()
    ones = tuple(ms.Tensor(np.ones(out.shape, np.float32)) for out in cell(*inputs))
    total = cells.FirstOf(cells.WeightedSum(cell, ones))
    grads, (table,) = ms.grad(total, (0, 1), ms.ParameterTuple([cell.embedding.weight]))(*inputs)
    counts = np.bincount(index.ravel(), minlength=5).astype(np.float32)
    rows = np.linalg.norm(x, axis=-1, keepdims=True)
    expected = (
        3
        + np.array([[1.0], [-1.0]])
        + np.array([2.0, -1.0, 0.0])
        + 2
        + 2
        + x / np.linalg.norm(x)
        + x / rows
    )
    expected = expected + counts[:2, None] + 2 * x
    np.testing.assert_allclose(grads[0].asnumpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(grads[1].asnumpy(), np.full(3, 4 * v.sum()), rtol=1e-6)
    np.testing.assert_allclose(table.asnumpy(), np.repeat(counts[:, None], 3, 1))


def test_random_functions_have_the_right_moments(graph_mode):
    import mindspore as ms

    from tests.launcher.cpu import cells

    x = ms.Tensor(np.zeros((100, 50), np.float32))
    for out, mean, std in zip(cells.Random()(x), (0, 0, 2), (1, 1, 0.5)):
        values = out.asnumpy()
        assert values.shape == (100, 50)
        assert abs(values.mean() - mean) < 0.06 and abs(values.std() - std) < 0.04


def test_what_is_not_supported_says_so(graph_mode):
    import mindspore as ms

    x = ms.Tensor(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="p=1"):
        ms.mint.norm(x, p=1)
    with pytest.raises(ValueError, match="generator"):
        ms.mint.randn(2, generator=ms.Generator())
