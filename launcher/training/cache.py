"""Where encodings are kept between `precompute` and the training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class MemoryCache:
    """Named arrays by key, in this process's memory."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, np.ndarray]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Mapping[str, np.ndarray]:
        """The arrays under a key. KeyError if there are none."""
        return self._entries[key]

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under a key; they are marked read-only, since steps share them."""
        entry = dict(arrays)
        for array in entry.values():
            array.setflags(write=False)
        self._entries[key] = entry
