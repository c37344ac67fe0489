"""Which parameters are trained, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def set_trainable(cell: Any, trainable: bool) -> None:
    """Set `requires_grad` on every parameter of a cell."""
    for parameter in cell.get_parameters():
        parameter.requires_grad = trainable


def freeze(cells: Iterable[Any]) -> None:
    """Leave nothing to train in these cells."""
    for cell in cells:
        set_trainable(cell, False)


def parameter_counts(cells: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(all, trainable) numbers of parameter elements by part."""
    counts = {}
    for name, cell in cells.items():
        sizes = [(p.size, p.requires_grad) for p in cell.get_parameters()]
        counts[name] = (sum(s for s, _ in sizes), sum(s for s, trained in sizes if trained))
    return counts
