"""GELU without the slow GeLU kernel and without the inaccurate tanh kernel."""

import math

from mindspore import ops

# gelu_tanh(x) = x/2 (1 + tanh(u)) = x sigmoid(2u),  2u = x (A + B x^2)
# (Hendrycks and Gimpel, arXiv:1606.08415, the tanh approximation).
_A = 2.0 * math.sqrt(2.0 / math.pi)
_B = _A * 0.044715


def gelu_tanh(x):
    """The tanh approximation of GELU, through sigmoid.

    The CPU kernel GeLU computes the same and takes four times as long, its gradient likewise. The
    sigmoid kernel is accurate to 1e-7, the tanh kernel only to 1e-4.
    """
    return x * ops.sigmoid(x * (_A + _B * (x * x)))


def gelu(input, *, approximate="none"):
    """``mint.nn.functional.gelu``."""
    if approximate == "tanh":
        return gelu_tanh(input)
    return ops.gelu(input, approximate="none")


def gelu_construct(self, input):
    """``mint.nn.GELU.construct``."""
    return gelu(input, approximate=self.approximate)


def new_gelu_construct(self, input):
    """``NewGELUActivation.construct`` of MindONE's transformers (T5's ``gelu_new``)."""
    return gelu_tanh(input)
