"""Where an entry is: an index of keys in a few numpy arrays, 48 bytes per entry.

A Python object per entry would take ten times the memory and seconds to make.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

KEY_BYTES = 32


def as_keys(keys: np.ndarray | Iterable[bytes]) -> np.ndarray:
    """Keys as uint8 `[N, 32]`, contiguous; from such an array or from `bytes`."""
    if not isinstance(keys, np.ndarray):
        joined = [bytes(key) for key in keys]
        if any(len(key) != KEY_BYTES for key in joined):
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        keys = np.frombuffer(b"".join(joined), np.uint8).reshape(-1, KEY_BYTES)
    if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != KEY_BYTES:
        raise ValueError(f"keys are uint8 [N, {KEY_BYTES}], not {keys.dtype} {list(keys.shape)}")
    return np.ascontiguousarray(keys)


def has_repeats(keys: np.ndarray) -> bool:
    """True if a key, uint8 `[N, 32]`, is in the array more than once."""
    # Different beginnings are different keys, and quick to compare.
    count = len(keys)
    return len(np.unique(keys.view(np.uint64)[:, 0])) < count > len(np.unique(keys, axis=0))


class _Table(NamedTuple):
    """Sorted by the first eight bytes of the key; of equal keys, the one added first is first."""

    prefixes: np.ndarray  # uint64 [N]
    keys: np.ndarray  # uint64 [N, 4]
    shards: np.ndarray  # int32 [N]
    rows: np.ndarray  # int32 [N]


_NONE = np.empty(0, np.int32)
_EMPTY = _Table(np.empty(0, np.uint64), np.empty((0, 4), np.uint64), _NONE, _NONE)


class Index:
    """Finds shard and row of keys. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = _EMPTY
        self._pending: list[tuple[int, np.ndarray]] = []

    def __len__(self) -> int:
        """Entries, counting each one as often as it is there."""
        return len(self._current().shards)

    def add(self, shard: int, keys: np.ndarray) -> None:
        """Add a shard's entries; `keys` is uint8 `[n, 32]` in the order of its rows."""
        with self._lock:
            # Sorted in when the next key is looked for: thousands of shards are added in a row.
            self._pending.append((shard, np.array(keys).view(np.uint64)))

    def remove(self, shards: Iterable[int]) -> None:
        """Forget all entries of some shards."""
        gone = np.fromiter(shards, np.int32)
        if not len(gone):
            return
        with self._lock:
            table = self._merge()
            kept = ~np.isin(table.shards, gone)
            self._table = _Table(*(column[kept] for column in table))

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of each key.

        Args:
            keys: uint8 `[N, 32]`, contiguous.

        Returns:
            int32 `[N]` each; the shard is -1 where there is no such entry.
        """
        table = self._current()
        wanted = keys.view(np.uint64)
        shards = np.full(len(keys), -1, np.int32)
        rows = np.zeros(len(keys), np.int32)
        at = np.searchsorted(table.prefixes, wanted[:, 0])
        open_ = np.arange(len(keys))
        # A second round is needed only where keys differ and their first eight bytes do not.
        while len(open_ := open_[at[open_] < len(table.prefixes)]):
            open_ = open_[table.prefixes[at[open_]] == wanted[open_, 0]]
            found = (table.keys[at[open_]] == wanted[open_]).all(axis=1)
            hits = open_[found]
            shards[hits], rows[hits] = table.shards[at[hits]], table.rows[at[hits]]
            open_ = open_[~found]
            at[open_] += 1
        return shards, rows

    def repeated(self) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of every entry that is there a second time, under the same key."""
        table = self._current()
        wanted = np.ascontiguousarray(table.keys).view(np.uint8)
        shards, rows = self.find(wanted)
        again = (shards != table.shards) | (rows != table.rows)
        return table.shards[again], table.rows[again]

    def _current(self) -> _Table:
        with self._lock:
            return self._merge()

    def _merge(self) -> _Table:
        """Sort in what was added. The table itself never changes: readers need no lock."""
        if self._pending:
            old, added = self._table, self._pending
            keys = np.concatenate([old.keys, *(k for _, k in added)])
            shards = [np.full(len(k), shard, np.int32) for shard, k in added]
            rows = [np.arange(len(k), dtype=np.int32) for _, k in added]
            order = np.argsort(keys[:, 0], kind="stable")
            keys = keys[order]
            self._table = _Table(
                keys[:, 0].copy(),
                keys,
                np.concatenate([old.shards, *shards])[order],
                np.concatenate([old.rows, *rows])[order],
            )
            self._pending = []
        return self._table
