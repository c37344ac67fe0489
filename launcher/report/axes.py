"""Where a value is on an axis, and what is written beside it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from launcher.report import formats


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`.

    Attributes:
        low, high: what it shows; low < high.
        is_log: equal ratios are equally long; low > 0.
        ticks: values that are labelled.
        labels: of the ticks.
    """

    low: float
    high: float
    is_log: bool
    ticks: tuple[float, ...]
    labels: tuple[str, ...]

    def place(self, values: np.ndarray) -> np.ndarray:
        """From 0, at the low end, to 1."""
        if self.is_log:
            return (np.log(values) - math.log(self.low)) / (
                math.log(self.high) - math.log(self.low)
            )
        # Halved first: the difference of two large numbers may be too large for one.
        return (values / 2 - self.low / 2) / (self.high / 2 - self.low / 2)


def of_values(values: np.ndarray, unit: str, *, from_zero: bool, may_be_log: bool) -> Axis:
    """An axis that shows all of the values.

    It is logarithmic where most of them would lie flat on a linear one: the largest is more than 20
    times the median, or the median more than 20 times the first percentile, and all are positive.

    Args:
        values: (N,), finite, at least one.
        unit: of `launcher.report.formats`.
        from_zero: a linear axis begins at 0, if no value is negative.
    """
    low, high = float(values.min()), float(values.max())
    if may_be_log and low > 0:
        middle = float(np.quantile(values, 0.5, method="lower"))
        if high / 20 > middle or middle / 20 > float(np.quantile(values, 0.01)):
            return _logarithmic(low, high, unit)
    if from_zero and low >= 0:
        low = 0.0
    if low == high:
        margin = abs(low) / 2 or 1.0
        low, high = (
            (0.0, 2 * high or 1.0) if from_zero and low >= 0 else (low - margin, low + margin)
        )
    return _linear(low, high, unit)


def of_steps(low: float, high: float) -> Axis:
    """An axis of step numbers. It ends where the steps end."""
    if low == high:
        return Axis(low - 1, high + 1, False, (low,), (f"{low:,.0f}",))
    step = max(1.0, _step((high - low) / 5))
    ticks = _multiples(low, high, step)
    return Axis(low, high, False, tuple(ticks), tuple(_count(tick) for tick in ticks))


def _count(value: float) -> str:
    if value >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}"


def _linear(low: float, high: float, unit: str) -> Axis:
    step = _step(high / 4 - low / 4)
    low, high = math.floor(low / step) * step, math.ceil(high / step - 1e-9) * step
    low, high = max(low, -sys.float_info.max), min(high, sys.float_info.max)
    ticks = _multiples(low, high, step)
    if unit == formats.NUMBER and 1e-3 <= max(abs(low), abs(high)) < 1e6:
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        labels = [f"{tick + 0.0:,.{decimals}f}" for tick in ticks]
    else:
        labels = [_label(tick, unit) for tick in ticks]
    return Axis(low, high, False, tuple(ticks), tuple(labels))


def _logarithmic(low: float, high: float, unit: str) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 5))
    ticks = [float(f"1e{power}") for power in range(first, min(last, 308) + 1, every)]
    if last - first <= 2:
        ticks = sorted([*ticks, *(float(f"3e{power}") for power in range(first, last))])
    top = float(f"1e{last}") if last <= 308 else sys.float_info.max
    low, high = max(float(f"1e{first}"), low / 1.3), min(top, high * 1.3)
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return Axis(low, high, True, tuple(ticks), tuple(_label(tick, unit) for tick in ticks))


def _label(value: float, unit: str) -> str:
    return formats.number(value, 3) if unit == formats.NUMBER else formats.WRITERS[unit](value)


def _step(size: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not smaller."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= size * 0.999)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]
