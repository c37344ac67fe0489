"""``mint.nn.Linear`` with fewer and faster kernels.

Called from graph mode: no closures, sources in this file.
"""

import mindspore as ms
from mindspore import nn, ops


class _Affine(nn.Cell):
    """``x @ weight.T + bias`` on rows, with its gradient written out.

    ``Dense``, which ``mint.nn.Linear`` calls, takes twice the time of ``MatMul`` and ``BiasAdd``;
    and ``BiasAddGrad`` takes five times that of a sum over rows.
    """

    def __init__(self):
        super().__init__()
        self.rows_by_rows = ops.MatMul(transpose_b=True)
        self.plain = ops.MatMul()
        self.columns_by_columns = ops.MatMul(transpose_a=True)
        self.bias_add = ops.BiasAdd()
        self.sum = ops.ReduceSum()

    def construct(self, x, weight, bias):
        """``x [n, in], weight [out, in], bias [out] -> [n, out]``."""
        return self.bias_add(self.rows_by_rows(x, weight), bias)

    def bprop(self, x, weight, bias, out, dout):
        return (
            self.plain(dout, weight),
            self.columns_by_columns(dout, x),
            self.sum(dout.astype(ms.float32), 0).astype(dout.dtype),
        )


_affine = _Affine()
_rows_by_rows = ops.MatMul(transpose_b=True)


def linear(x, weight, bias):
    """``torch.nn.functional.linear``: ``x [..., in] -> [..., out]``; ``bias`` may be None."""
    rows = x.reshape((-1, x.shape[-1]))
    if bias is None:
        out = _rows_by_rows(rows, weight)
    else:
        out = _affine(rows, weight, bias)
    return out.reshape((*x.shape[:-1], weight.shape[0]))


def linear_construct(self, x):
    """``mint.nn.Linear.construct``.

    The casts do nothing unless ``to_float`` gave the input another dtype than the parameters.
    """
    weight = self.weight.astype(x.dtype)
    bias = None if self.bias is None else self.bias.astype(x.dtype)
    return linear(x, weight, bias)
