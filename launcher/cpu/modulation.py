"""Scaling, shifting and gating tokens by one vector per sample (arXiv:2212.09748, adaLN-Zero)."""

from mindspore import nn

from launcher.cpu.means import token_sum


def _per_token(vector):
    """``[b, c] -> [b, 1, c]``."""
    return vector.reshape((vector.shape[0], 1, vector.shape[1]))


class _Modulate(nn.Cell):
    """Written out because the gradients of ``scale`` and ``shift`` are sums over tokens."""

    def construct(self, x, scale, shift):
        return x * _per_token(1 + scale) + _per_token(shift)

    def bprop(self, x, scale, shift, out, dout):
        return dout * _per_token(1 + scale), token_sum(dout * x), token_sum(dout)


class _GatedResidual(nn.Cell):
    """Written out because the gradient of ``gate`` is a sum over tokens."""

    def construct(self, residual, gate, x):
        return residual + _per_token(gate) * x

    def bprop(self, residual, gate, x, out, dout):
        return dout, token_sum(dout * x), dout * _per_token(gate)


_modulate = _Modulate()
_gated_residual = _GatedResidual()


def modulate(x, scale, shift):
    """``x [b, s, c] * (1 + scale [b, c]) + shift [b, c]``."""
    return _modulate(x, scale, shift)


def gated_residual(residual, gate, x):
    """``residual [b, s, c] + gate [b, c] * x [b, s, c]``."""
    return _gated_residual(residual, gate, x)
