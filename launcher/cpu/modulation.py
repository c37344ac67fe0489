"""Scaling, shifting and gating tokens by one vector per sample (arXiv:2212.09748, adaLN-Zero)."""

import mindspore as ms
from mindspore import ops

from launcher.cpu.means import constant

_batch_matmul = ops.BatchMatMul()


def _every_token(vector, tokens):
    """``vector [b, c] -> [b, tokens, c]``, the same for every token.

    Written as a product with ones, because the gradient is then such a product too. The gradient
    of a broadcast is a sum over a middle axis, which takes five times as long on CPU. Float32, so
    that the gradient sums in float32.
    """
    batch, channels = vector.shape
    ones = constant((batch, tokens, 1), 1.0)
    repeated = _batch_matmul(ones, vector.astype(ms.float32).reshape((batch, 1, channels)))
    return repeated.astype(vector.dtype)


def modulate(x, scale, shift):
    """``x [b, s, c] * (1 + scale [b, c]) + shift [b, c]``."""
    tokens = x.shape[1]
    return x * _every_token(1 + scale, tokens) + _every_token(shift, tokens)


def gated_residual(residual, gate, x):
    """``residual [b, s, c] + gate [b, c] * x [b, s, c]``."""
    return residual + _every_token(gate, x.shape[1]) * x
