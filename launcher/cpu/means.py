"""Means of rows, written as products with constant matrices.

The CPU's reductions over the last axis take five to ten times as long as the same mean as a matrix
product, and a mean that comes out of a product already repeated along the row needs no broadcast,
which is slow too.
"""

import mindspore as ms
import numpy as np
from mindspore import ops
from mindspore.ops import constexpr

# Up to this row length one product with a square matrix is faster than two with a vector.
_SQUARE_UP_TO = 256

_matmul = ops.MatMul()


@constexpr
def constant(shape, value):
    """A float32 tensor with ``value`` everywhere, part of the compiled graph."""
    return ms.Tensor(np.full(shape, value, np.float32))


def row_means(rows):
    """``rows [n, d]`` float32 ``-> [n, d]``: the mean of each row, repeated along it."""
    size = rows.shape[-1]
    if size <= _SQUARE_UP_TO:
        return _matmul(rows, constant((size, size), 1.0 / size))
    return repeat_along_row(_matmul(rows, constant((size, 1), 1.0 / size)), size)


def repeat_along_row(column, size):
    """``column [n, 1] -> [n, size]``."""
    return _matmul(column, constant((1, size), 1.0))
