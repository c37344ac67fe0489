"""FLUX's rotary position embedding: tables and their application (arXiv:2104.09864)."""

import mindspore as ms
import numpy as np
from mindspore import ops
from mindspore.ops import constexpr


@constexpr
def _frequencies(axes_dim, theta):
    """``[axes, sum(axes_dim)]``: row ``i`` holds axis ``i``'s frequencies, each twice.

    ``ids [s, axes] @ it`` is then the angle of every component of the head. Computed in float64
    because the CPU's ``exp`` and ``pow`` are accurate to 1.5e-6 only.
    """
    table = np.zeros((len(axes_dim), sum(axes_dim)))
    start = 0
    for axis, size in enumerate(axes_dim):
        frequencies = 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float64) / size)
        table[axis, start : start + size] = np.repeat(frequencies, 2)
        start += size
    return ms.Tensor(table, ms.float32)


@constexpr
def _quarter_turn(size, dtype):
    """``[size, size]``: ``x @ it`` is ``(-x1, x0, -x3, x2, ...)``."""
    matrix = np.zeros((size, size))
    even = np.arange(0, size, 2)
    matrix[even + 1, even] = -1.0
    matrix[even, even + 1] = 1.0
    return ms.Tensor(matrix, dtype)


def pos_embed_construct(self, ids):
    """``FluxPosEmbed.construct``: ``ids [s, axes] -> (cos, sin)``, each ``[s, d]`` float32."""
    angles = ops.matmul(ids.astype(ms.float32), _frequencies(tuple(self.axes_dim), self.theta))
    return ops.cos(angles), ops.sin(angles)


def rotate(x, cos, sin):
    """Rotate neighbouring pairs of components.

    Args:
        x: ``[b, h, s, d]``.
        cos, sin: float32, ``[s, d]``.

    Returns:
        Shape and dtype of ``x``; computed in float32, as diffusers' ``apply_rotary_emb`` does.
    """
    full = x.astype(ms.float32)
    turned = ops.matmul(full.reshape((-1, x.shape[-1])), _quarter_turn(x.shape[-1], ms.float32))
    # Broadcasting inside a product is slow on CPU. Expanding is one operation for all blocks,
    # because equal expressions are merged when the graph is compiled.
    cos = ops.broadcast_to(cos, x.shape)
    sin = ops.broadcast_to(sin, x.shape)
    return (full * cos + turned.reshape(x.shape) * sin).astype(x.dtype)
