"""Cells for test_in_place.py: compiled, so they live in a file of their own."""

from mindspore import nn


class Augmented(nn.Cell):
    """All the operators, on two tensors and on a tensor and a number."""

    def construct(self, x, y):
        x += y
        x += 1
        x -= y
        x -= 3
        x *= y
        x *= 2
        x /= y
        x /= 4
        x //= y
        x //= 2
        x %= y
        x %= 3
        return x


class Halves(nn.Cell):
    """In either way."""

    def construct(self, x):
        y = x
        x /= 2
        y *= 0.5
        return x, y


class Sum(nn.Cell):
    def construct(self, x, y):
        x += y
        return x


class SumInPlace(nn.Cell):
    def construct(self, x):
        x += x * 2
        return x


class Part(nn.Cell):
    """Indexing that MindSpore computes with `+=` on integers."""

    def construct(self, x):
        return (x[:, :2] * 2).sum()
