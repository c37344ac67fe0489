"""Cells for test_nonfinite.py. One of them is compiled, so they live in a file of their own."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


class Scale(nn.Cell):
    """factor * x"""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def construct(self, x):
        return x * self.factor


class Gain(nn.Cell):
    """weight * x, with one trained weight for all elements"""

    def __init__(self, dtype=ms.float16):
        super().__init__()
        self.weight = Parameter(Tensor([1.0], dtype), name="weight")

    def construct(self, x):
        return x * self.weight


class Between(nn.Cell):
    """Squares x between its two sub-cells, or after them."""

    def __init__(self, after):
        super().__init__()
        self.first = Scale(1.0)
        self.second = Scale(0.5)
        self.after = after

    def construct(self, x):
        x = self.first(x)
        if self.after:
            x = self.second(x)
            return x * x
        return self.second(x * x)


class Clipped(nn.Cell):
    """Keeps float16 finite."""

    def __init__(self, factor):
        super().__init__()
        self.inner = Scale(factor)

    def construct(self, x):
        return self.inner(x).clip(-65504, 65504)


class RootMeanSquare(nn.Cell):
    """x / sqrt(mean(x**2)) * weight, with the mean in float32 whatever x is."""

    def __init__(self, size):
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(size, np.float32)), name="weight")

    def construct(self, x):
        mean = ops.square(x.astype(ms.float32)).mean()
        return x * ops.rsqrt(mean).astype(x.dtype) * self.weight


class Keywords(nn.Cell):
    """Takes keywords only, returns a dict."""

    def construct(self, *, values, positions=None, nothing=None):
        return {"positions": positions, "values": [values[0] * 2, None], "nothing": nothing}


class CallsWithKeywords(nn.Cell):
    def __init__(self):
        super().__init__()
        self.inner = Keywords()

    def construct(self, x):
        positions = ops.ones((2,), ms.int32)
        return self.inner(values=(x, positions), positions=positions)["values"][0]


class Fails(nn.Cell):
    """Fails, once its weight is cast."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor([1.0], ms.float32), name="weight")

    def construct(self, x):
        raise RuntimeError(f"weight is {self.weight.dtype}")


class Chain(nn.Cell):
    """Sum, in float32, of what layers make of weight * x; `weight` is one trained number."""

    def __init__(self, *layers, dtype=ms.float16):
        super().__init__()
        self.dtype = dtype
        self.gain = Gain(dtype)
        self.layers = nn.CellList(list(layers))

    def construct(self, x, labels=None):
        x = self.gain(x.astype(self.dtype))
        for layer in self.layers:
            x = layer(x)
        return x.astype(ms.float32).sum()
