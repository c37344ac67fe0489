"""Looking after a cache: what is in it, whether it is whole, and what can go.

`launcher cache ls | verify | prune` shows these at work.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import atomic
from ..errors import UserError
from . import shards
from .disk import DiskCache, Shard
from .index import Index
from .place import default_root

_SUBFOLDER = "encodings"


@dataclass
class Group:
    """Entries of one kind that were made with the same.

    Attributes:
        kind: of what they are.
        about: with what they were made.
        arrays: dtype and shape of each array, in words.
        entries, shards, size: how many and how many bytes.
        last_used: seconds since the epoch.
    """

    kind: str
    about: dict[str, str]
    arrays: dict[str, str]
    entries: int = 0
    shards: int = 0
    size: int = 0
    last_used: float = 0.0


@dataclass(frozen=True)
class DamagedEntry:
    """An entry whose data do not fit their checksums."""

    path: str
    row: int
    key: str  # hexadecimal
    arrays: list[str]


@dataclass
class Damage:
    """What `verify` found: shards as path and reason, and entries of shards that can be read."""

    shards: list[tuple[str, str]] = field(default_factory=list)
    entries: list[DamagedEntry] = field(default_factory=list)


@dataclass(frozen=True)
class Removal:
    """What `prune` removed, or would remove."""

    path: str
    reason: str
    size: int  # bytes


def locate(directory: str | None) -> Path:
    """The cache that a user means.

    Args:
        directory: of the cache, or the data.cache_dir that it is in; None: the default one.

    Raises:
        UserError: there is none.
    """
    if directory is None:
        path = default_root() / _SUBFOLDER
        if not path.is_dir():
            raise UserError(
                f"there is no cache at {path}, where runs keep it by default. If they keep it "
                "elsewhere, name the folder: that of data.cache_dir."
            )
        return path
    path = Path(directory).expanduser()
    if not path.exists():
        raise UserError(f"there is no folder {path}. Name the cache's, that of data.cache_dir.")
    if not path.is_dir():
        raise UserError(f"{path} is a file. Name the cache's folder, that of data.cache_dir.")
    try:
        if (path / _SUBFOLDER).is_dir():
            return path / _SUBFOLDER
        if any(shards.SHARD_NAME.fullmatch(entry.name) for entry in os.scandir(path)):
            raise UserError(
                f"{path} holds the entries of one kind; the cache is the folder around it: "
                f"{path.absolute().parent}."
            )
        if not _may_be_a_cache(path):
            raise UserError(
                f"{path} is no cache of encodings: other things are in it, and no encodings. Name "
                "the folder of data.cache_dir; without a name, the default one is taken."
            )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return path


def _may_be_a_cache(path: Path) -> bool:
    """True if there are shards in it, or nothing but empty folders."""
    only_folders = True
    for entry in os.scandir(path):
        inner = [e.name for e in os.scandir(entry)] if entry.is_dir() else [""]
        if any(shards.SHARD_NAME.fullmatch(n) or shards.PARTIAL_NAME.fullmatch(n) for n in inner):
            return True
        only_folders = only_folders and not inner
    return only_folders


def summarise(cache: DiskCache) -> list[Group]:
    """What is in a cache, by kind and by what it was made with."""
    groups: dict[tuple[object, ...], Group] = {}
    for path, layout in cache.listing():
        arrays = {a.name: f"{a.dtype} {list(a.shape)}" for a in layout.arrays}
        group = groups.setdefault(
            (layout.kind, layout.about, tuple(arrays.items())),
            Group(layout.kind, dict(layout.about), arrays),
        )
        group.entries += layout.count
        group.shards += 1
        group.size += layout.size
        group.last_used = max(group.last_used, _last_used(path))
    return [groups[key] for key in sorted(groups, key=str)]


def verify(cache: DiskCache, advance: Callable[[], None] = lambda: None) -> Damage:
    """Compare everything in a cache with its checksums.

    Args:
        advance: called after each shard of `cache.listing()`.
    """
    damage = Damage([*cache.damaged, *cache.unreadable])
    for path, layout in cache.listing():
        try:
            rows = shards.damaged_rows(path, layout)
            keys = shards.read(path)[1] if rows else None
        except FileNotFoundError:  # pruned meanwhile
            rows = {}
        except (OSError, shards.DamagedShardError) as error:
            rows = {}
            damage.shards.append((path, f"cannot be read: {error}"))
        for row, names in sorted(rows.items()):
            assert keys is not None
            damage.entries.append(DamagedEntry(path, row, keys[row].tobytes().hex(), names))
        advance()
    return damage


def drop(cache: DiskCache, damage: Damage) -> None:
    """Remove what `verify` found, so that the next run encodes it anew.

    Raises:
        UserError: the cache cannot be written to.
    """
    with cache.writing(0):
        for path, _ in damage.shards:
            _unlink(path)
    for path in dict.fromkeys(entry.path for entry in damage.entries):
        cache.drop_rows(path, [entry.row for entry in damage.entries if entry.path == path])
    cache.refresh()


def prune(
    cache: DiskCache,
    *,
    unused_for: float = math.inf,
    max_size: float = math.inf,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove what is of no use: leftovers, damaged shards, entries that are there twice.

    Args:
        unused_for: remove what no run has used for so many seconds, too.
        max_size: remove what was not used for the longest time, until so many bytes are left.
        dry_run: only say what would be removed.

    Raises:
        UserError: the cache cannot be written to.
    """
    removals = [
        Removal(path, "left by a process that was killed", _size(path))
        for path in _partials(cache.directory)
        if shards.is_abandoned(path)
    ]
    removals += [Removal(path, reason, _size(path)) for path, reason in cache.damaged]
    now = time.time()
    left = []
    for last_used, shard in sorted((_last_used(s.path), s) for s in cache.listing()):
        if now - last_used > unused_for:
            removals.append(Removal(shard.path, "not used any more", shard.layout.size))
        else:
            left.append(shard)
    excess = sum(shard.layout.size for shard in left) - max_size
    while excess > 0:
        shard = left.pop(0)
        excess -= shard.layout.size
        removals.append(Removal(shard.path, "longest not used", shard.layout.size))
    again = _repeated(left)
    if not dry_run:
        with cache.writing(0):
            for removal in removals:
                _unlink(removal.path)
            for folder in {os.path.dirname(removal.path) for removal in removals}:
                atomic.sync(folder)
    for shard, rows in again:
        if not dry_run:
            cache.drop_rows(shard.path, rows)
        reason = f"{len(rows)} of its {shard.layout.count} entries are in other shards, too"
        size = len(rows) * shards.bytes_per_entry(shard.layout.specs)
        removals.append(Removal(shard.path, reason, size))
    if not dry_run:
        cache.refresh()
    return removals


def _repeated(listing: list[Shard]) -> list[tuple[Shard, list[int]]]:
    """Rows whose entry is in another shard as well, which keeps it: the largest one."""
    ordered = sorted(listing, key=lambda shard: (-shard.layout.count, shard.path))
    index = Index()
    for number, shard in enumerate(ordered):
        with suppress(FileNotFoundError, shards.DamagedShardError):
            index.add(number, shards.read(shard.path)[1])
    numbers, rows = index.repeated()
    return [(ordered[n], sorted(rows[numbers == n].tolist())) for n in np.unique(numbers)]


def _partials(directory: Path) -> list[str]:
    paths = []
    for kind in os.scandir(directory):
        if shards.KIND_NAME.fullmatch(kind.name) and kind.is_dir():
            paths += [e.path for e in os.scandir(kind) if shards.PARTIAL_NAME.fullmatch(e.name)]
    return sorted(paths)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _size(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return 0


def _last_used(path: str) -> float:
    with suppress(OSError):
        return os.stat(path).st_mtime
    return time.time()
