"""A hundred thousand points as some hundred, without losing what stands out."""

from __future__ import annotations

import numpy as np

#: A line of fewer steps is not smoothed.
_FEWEST = 30


def buckets(x: np.ndarray, count: int, low: float, high: float) -> np.ndarray:
    """The bucket of each position: whole numbers from 0 to count - 1.

    Args:
        x: (N,) positions within [low, high].
    """
    if high <= low:
        return np.zeros(len(x), np.int64)
    return np.minimum(((x - low) / (high - low) * count).astype(np.int64), count - 1)


def extremes(
    x: np.ndarray, y: np.ndarray, count: int, low: float, high: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The smallest and the largest value in each bucket, and the first and the last of all.

    Args:
        x: (N,) positions, rising, within [low, high].
        y: (N,) values. Where one is not finite, the line is interrupted.
        count: number of buckets.

    Returns:
        The pieces of the line, each as positions and values in the order of `x`.
    """
    finite = np.flatnonzero(np.isfinite(y))
    if not len(finite):
        return []
    values, bucket = y[finite], buckets(x[finite], count, low, high)
    order = np.lexsort((values, bucket))  # by bucket, and in it by value
    ends = np.flatnonzero(np.diff(bucket[order], append=-1))
    starts = np.r_[0, ends[:-1] + 1]
    kept = np.unique(np.r_[0, order[starts], order[ends], len(finite) - 1])
    rows = finite[kept]
    return [(x[piece], y[piece]) for piece in _pieces(rows, y)]


def window(count: int) -> int:
    """Over how many values a line of so many is smoothed; an odd number, 1: it is not."""
    return 1 if count < _FEWEST else max(5, count // 50) // 2 * 2 + 1


def smoothed(
    x: np.ndarray, y: np.ndarray, width: int, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mean of the finite values around some of the finite points, evenly spread.

    Each mean is taken of its values alone. A running sum would be faster, and one value of 1e20
    would spoil all that come after it.

    Args:
        x, y: (N,) as for `extremes`.
        width: number of values in a mean, odd; fewer at both ends, and where some are not finite.
        count: of points, at most.

    Returns:
        The pieces of the line, as `extremes` has them.
    """
    is_finite = np.isfinite(y)
    finite = np.flatnonzero(is_finite)
    if not len(finite):
        return []
    chosen = np.linspace(0, len(finite) - 1, min(count, len(finite))).round().astype(np.int64)
    half = width // 2

    def mean(row: int) -> float:
        around = slice(max(0, row - half), row + half + 1)
        return float(y[around][is_finite[around]].mean())

    pieces = _pieces(finite[np.unique(chosen)], y)
    return [(x[piece], np.array([mean(row) for row in piece])) for piece in pieces]


def _pieces(rows: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Rows of finite values, split where one between two of them is not finite.

    Args:
        rows: (M,) rising.
        y: (N,) values.
    """
    lost = np.cumsum(~np.isfinite(y))[rows]
    return np.split(rows, np.flatnonzero(np.diff(lost)) + 1)


def summaries(
    x: np.ndarray, y: np.ndarray, count: int, low: float, high: float
) -> list[tuple[float, float, float, float, float]]:
    """(first position, last position, mean, smallest, largest) of the finite values in each bucket
    that has any."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(y):
        return []
    bucket = buckets(x, count, low, high)
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    ends = np.r_[starts[1:], len(y)]
    return [
        (
            float(x[a]),
            float(x[b - 1]),
            float(y[a:b].mean()),
            float(y[a:b].min()),
            float(y[a:b].max()),
        )
        for a, b in zip(starts, ends)
    ]
