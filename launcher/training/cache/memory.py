"""A cache in this process's memory: for a look at a few samples, and for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from .encoding import Batches
from .index import as_keys


class MemoryCache:
    """Named arrays by key. What `DiskCache` can do, but nothing outlives the process."""

    def __init__(self) -> None:
        self._entries: dict[bytes, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Which of the keys, uint8 `[N, 32]`, are not there: bool `[N]`."""
        return np.array([bytes(key) not in self._entries for key in as_keys(keys)], bool)

    def get(self, key: bytes) -> Mapping[str, np.ndarray]:
        """The arrays under a key, read-only. KeyError if there are none."""
        return self._entries[bytes(key)]

    def fill(
        self,
        kind: str,
        keys: np.ndarray,
        encode: Callable[[Sequence[int]], Mapping[str, np.ndarray]],
        describe: Callable[[int], str],
        *,
        batch_size: int = 8,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Encode what is missing; see `DiskCache.fill`."""
        keys = as_keys(keys)
        positions = np.flatnonzero(self.missing(keys))
        if not len(positions):
            return
        batches = Batches(encode, describe, batch_size)
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size].tolist()
            rows = batches.encode(chosen)
            for number, position in enumerate(chosen):
                # Copies: a view would keep the whole batch, and change with it.
                entry = {name: array[number].copy() for name, array in rows.items()}
                for array in entry.values():
                    array.setflags(write=False)
                self._entries[keys[position].tobytes()] = entry

    def discard(self, keys: Iterable[bytes]) -> None:
        """Drop entries, if they are there."""
        for key in as_keys(keys):
            self._entries.pop(bytes(key), None)

    def refresh(self) -> None:
        """Nobody else writes here."""

    def require_writable(self) -> None:
        """It always is."""
