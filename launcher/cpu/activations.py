"""GELU without the slow GeLU kernel and without the inaccurate tanh kernel."""

import math

from mindspore import nn, ops

# gelu_tanh(x) = x/2 (1 + tanh(u)) = x sigmoid(2u),  2u = x (A + B x^2)
# (Hendrycks and Gimpel, arXiv:1606.08415, the tanh approximation).
_A = 2.0 * math.sqrt(2.0 / math.pi)
_B = _A * 0.044715


class _GeluTanh(nn.Cell):
    """The tanh approximation of GELU through sigmoid.

    The CPU kernel GeLU computes the same and takes four times as long, its gradient likewise.
    The sigmoid kernel is accurate to 1e-7, the tanh kernel only to 1e-4.
    """

    def __init__(self):
        super().__init__()
        self.sigmoid = ops.Sigmoid()
        self.square = ops.Square()

    def construct(self, x):
        """``x [...] -> (gelu(x) [...], sigmoid(2u) [...])``; the second is for the gradient."""
        gate = self.sigmoid(x * (_A + _B * self.square(x)))
        return x * gate, gate

    def bprop(self, x, out, dout):
        # d/dx x s(2u) = s + x s (1 - s) (2u)' ,  (2u)' = A + 3B x^2
        y, gate = out
        slope = gate + (y - y * gate) * (_A + (3.0 * _B) * self.square(x))
        return (dout[0] * slope,)


_gelu_tanh = _GeluTanh()


def gelu(input, *, approximate="none"):
    """``mint.nn.functional.gelu``."""
    if approximate == "tanh":
        return _gelu_tanh(input)[0]
    return ops.gelu(input, approximate="none")


def gelu_construct(self, input):
    """``mint.nn.GELU.construct``."""
    return gelu(input, approximate=self.approximate)


def new_gelu_construct(self, input):
    """``NewGELUActivation.construct`` of MindONE's transformers (T5's ``gelu_new``)."""
    return _gelu_tanh(input)[0]
