"""Equivalents of ``mint`` functions on tensors that have no CPU kernel.

Each has the signature of the ``mint`` function it replaces, as far as the models use it, and the
same result. ``ops`` holds an older function with a CPU kernel for nearly every one.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ops


def arange(start=0, end=None, step=1, *, dtype=None):
    """``mint.arange``: the kernel ``Arange`` is missing in PyNative."""
    if end is None:
        start, end = 0, start
    return ops.arange(start, end, step, dtype=dtype)


def linspace(start, end, steps, *, dtype=None):
    """``mint.linspace``: float32 unless ``dtype`` says otherwise."""
    values = ops.linspace(float(start), float(end), steps)
    return values if dtype is None else values.astype(dtype)


def stack(tensors, dim=0):
    """``mint.stack``."""
    return ops.stack(tensors, dim)


def unbind(input, dim=0):
    """``mint.unbind``: the forward pass has a kernel, its gradient (``StackExt``) has none."""
    return ops.unbind(input, dim)


def chunk(input, chunks, dim=0):
    """``mint.chunk`` into equal parts."""
    if input.shape[dim] % chunks != 0:
        raise ValueError(f"On CPU, chunk makes equal parts; {input.shape[dim]} is no multiple.")
    return ops.Split(dim, chunks)(input)


def outer(input, vec2):
    """``mint.outer`` of two vectors: ``[n], [m] -> [n, m]``."""
    return input.reshape((-1, 1)) * vec2.reshape((1, -1))


def full(size, fill_value, *, dtype=None):
    """``mint.full``."""
    if isinstance(size, int):
        size = (size,)
    return ops.full(tuple(size), fill_value, dtype=dtype)


def zeros_like(input, *, dtype=None):
    """``mint.zeros_like``."""
    return ops.zeros_like(input, dtype=dtype)


def ones_like(input, *, dtype=None):
    """``mint.ones_like``."""
    return ops.ones_like(input, dtype=dtype)


def repeat_interleave(input, repeats, dim=None, output_size=None):
    """``mint.repeat_interleave`` with an integer ``repeats``."""
    if dim is None:
        input, dim = input.reshape((-1,)), 0
    return ops.repeat_interleave(input, repeats, dim)


def norm(input, p="fro", dim=None, keepdim=False, *, dtype=None):
    """``mint.norm``, Euclidean only (``p`` 2 or ``"fro"``)."""
    if p not in (2, "fro"):
        raise ValueError(f"mint.norm on CPU is available for p=2 and p='fro', not for p={p!r}.")
    if dtype is not None:
        input = input.astype(dtype)
    axis = () if dim is None else dim
    return ops.sqrt(ops.ReduceSum(keepdim)(ops.square(input), axis))


def normal(mean=0.0, std=1.0, size=None, generator=None):
    """``mint.normal`` with numbers for ``mean`` and ``std``. ``generator`` is not supported."""
    _no_generator(generator)
    return ops.standard_normal(size) * std + mean


def randn(*size, generator=None, dtype=None):
    """``mint.randn``. ``generator`` is not supported."""
    _no_generator(generator)
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    return ops.standard_normal(size).astype(ms.float32 if dtype is None else dtype)


def randn_like(input, *, dtype=None):
    """``mint.randn_like``."""
    return ops.standard_normal(input.shape).astype(input.dtype if dtype is None else dtype)


def _no_generator(generator):
    if generator is not None:
        raise ValueError("On CPU, random numbers with a generator must be drawn on the host.")
