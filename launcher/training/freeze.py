"""Which parameters are trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def set_trainable(cell: Any, trainable: bool) -> None:
    """Set `requires_grad` on every parameter of a cell."""
    for parameter in cell.get_parameters():
        parameter.requires_grad = trainable


def freeze(cells: Iterable[Any]) -> None:
    """Leave nothing to train in these cells."""
    for cell in cells:
        set_trainable(cell, False)
