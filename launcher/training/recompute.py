"""Gradient checkpointing: recompute activations in the backward pass instead of keeping them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def checkpoint_blocks(blocks: Iterable[Any]) -> None:
    """Keep only the inputs of each block (an `nn.Cell`) for the backward pass.

    mindone 0.5's `enable_gradient_checkpointing` looks for a method `recompute_` that no cell
    has, and raises; this is MindSpore's own `Cell.recompute`, which takes effect in graph mode.
    """
    from launcher.training import device

    device.prepare_recomputation()
    for block in blocks:
        block.recompute()
