"""What a recipe has to have encoded, where that is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class NoEncodings:
    """A plan without keys."""

    def keys(self) -> np.ndarray:
        """uint8 `[0, 32]`."""
        import numpy as np

        return np.zeros((0, 32), np.uint8)
