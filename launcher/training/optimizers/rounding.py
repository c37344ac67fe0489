"""Stochastic rounding to half precision, with bits that are a function and not a state.

Rounded to nearest, an update smaller than half the distance to the next number is lost, every
time. Rounded up or down at random, with the probability that makes the mean right, it is kept on
average (Gupta et al., "Deep learning with limited numerical precision", 2015).

The bits are a function of (seed, step, name of the parameter, row, column), so that a run repeats
and a resumed run goes on as it would have. They are computed in the graph: drawing on the host
would cost a copy of the size of the model every step. Everything is integers below 2**31, so
nothing overflows, and the operators (Mul, BitwiseAnd, BitwiseXor, RightShift, and casts) exist on
CPU and on Ascend.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from launcher.training import random

# A Feistel network of four rounds on 16-bit halves. Odd multipliers below 2**15. Three rounds
# already leave neither a bias nor a correlation between neighbours that 2**18 draws would show.
_MULTIPLIERS = (0x6D2B, 0x58F1, 0x7A4D, 0x4CB3)
_MASK = 0xFFFF


def counters(seed: int, parameter: Parameter) -> tuple[Tensor, Tensor, Tensor]:
    """What `uniform` needs for a parameter.

    Returns:
        Two 16-bit halves of a key for each row, int32 `[R, 1]`, drawn from the seed and the
        parameter's name; and the numbers of the columns, int32 `[1, C]`.

    Rows are the first dimension, columns the others: an index of every element would take as much
    memory as a float32 copy of the parameter.
    """
    rows = parameter.shape[0] if parameter.ndim > 1 else 1
    columns = math.prod(parameter.shape[1:] if parameter.ndim > 1 else parameter.shape)
    generator = random.generator(seed, f"stochastic rounding of {parameter.name}")
    left, right = generator.integers(0, 2**16, (2, rows, 1))
    numbers = np.arange(columns).reshape(1, -1)
    return Tensor(left, ms.int32), Tensor(right, ms.int32), Tensor(numbers, ms.int32)


def _absorb(left: Tensor, right: Tensor, counter: Tensor) -> tuple[Tensor, Tensor]:
    """Mix a counter into a state of two 16-bit halves."""
    left = ops.bitwise_xor(left, ops.bitwise_right_shift(counter, 16))
    right = ops.bitwise_xor(right, ops.bitwise_and(counter, _MASK))
    for multiplier in _MULTIPLIERS:
        mixed = ops.bitwise_and(ops.bitwise_right_shift(right * multiplier, 7), _MASK)
        left, right = right, ops.bitwise_xor(left, mixed)
    return left, right


def uniform(left: Tensor, right: Tensor, columns: Tensor, step: Tensor) -> Tensor:
    """float32 `[R, C]`, multiples of 2**-16 uniform in [0, 1).

    Args:
        left, right, columns: see `counters`.
        step: int32, one number.
    """
    left, right = _absorb(left, right, step)
    left, right = _absorb(left, right, columns)
    return right.astype(ms.float32) * 2.0**-16


def round_stochastically(value: Tensor, dtype: ms.Type, chance: Tensor) -> Tensor:
    """Round float32 to `dtype`, to the nearest number or to the next one on the other side.

    Args:
        value: float32.
        dtype: float16 or bfloat16.
        chance: uniform in [0, 1), of the value's shape.

    Returns:
        Float32, representable in `dtype`; its mean over `chance` is `value` up to 2**-16 of the
        distance between neighbours, and exactly `value` where that is representable.
    """
    # Bits of the significand, and the smallest distance between numbers; of bfloat16 one that no
    # device flushes to zero. (A table with dtypes for keys is no constant to the graph compiler.)
    if dtype == ms.float16:
        bits, smallest = 11, 2.0**-24
    else:
        bits, smallest = 8, 2.0**-125
    nearest = value.astype(dtype).astype(ms.float32)
    rest = value - nearest
    # 5/8 to 5/4 of the distance to the next number away from zero; towards zero, where that is
    # half as far below a power of two, 5/4 of it. In each case it rounds to the next number.
    nudge = ops.maximum(ops.abs(nearest) * (1.25 * 2.0**-bits), 0.625 * smallest)
    other = (nearest + ops.sign(rest) * nudge).astype(dtype).astype(ms.float32)
    return ops.select(ops.abs(rest) > chance * ops.abs(other - nearest), other, nearest)
