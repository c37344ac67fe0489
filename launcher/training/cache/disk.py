"""The cache on disk.

    DIRECTORY/KIND/DIGEST.safetensors       see `shards`

Any number of processes may fill and read it at the same time. None waits for another: a shard
appears whole, under a name that follows from its entries, so the worst that two can do is to make
the same file twice.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import atomic
from ..errors import UserError
from ..sizes import size_text
from . import shards
from .encoding import Batches
from .filling import Behind, divide
from .index import Index, as_keys, has_repeats
from .mapping import OpenFiles, map_bytes
from .shards import DamagedEntryError, DamagedShardError, Layout, Writer

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Shard(NamedTuple):
    """A shard that can be read."""

    path: str
    layout: Layout


class DiskCache:
    """Named arrays by key, in files. May be read by one thread while another fills it.

    Args:
        directory: made when the first entry is written.
        rank: of this process among those that fill the cache together.
        world_size: how many these are; each encodes its share of what is missing.
        verify: check everything that is read against its checksum.
        max_shard_bytes: about how large shards become.
        max_shard_entries: how many entries a shard may have; a process encodes so many in a row.

    Attributes:
        damaged: path and reason, the end of a sentence, of each shard that is not what it should
            be. It counts as not there.
        unreadable: the same of shards that could not be read at all.

    Raises:
        UserError: the directory cannot be read.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        rank: int = 0,
        world_size: int = 1,
        verify: bool = False,
        max_shard_bytes: int = 256 * 2**20,
        max_shard_entries: int = 256,
    ) -> None:
        assert 0 <= rank < world_size
        self.directory = Path(directory).expanduser()
        self.damaged: list[tuple[str, str]] = []
        self.unreadable: list[tuple[str, str]] = []
        self._rank = rank
        self._world_size = world_size
        self._verify = verify
        self._max_shard_bytes = max_shard_bytes
        self._max_shard_entries = max_shard_entries
        self._index = Index()
        self._shards: list[Shard] = []
        self._numbers: dict[str, int] = {}
        self._files = OpenFiles()
        self._lock = threading.RLock()
        self.refresh()

    def __len__(self) -> int:
        """Entries; one that stands in two shards counts twice."""
        return len(self._index)

    def listing(self) -> list[Shard]:
        """All shards that can be read, by path."""
        with self._lock:
            return [self._shards[number] for _, number in sorted(self._numbers.items())]

    def refresh(self) -> None:
        """See what other processes have written or removed since.

        Raises:
            UserError: the directory cannot be read.
        """
        with self._lock:
            paths = self._list()
            self._forget(self._numbers.keys() - set(paths))
            self.damaged, self.unreadable = [], []
            for path in paths:
                if path in self._numbers:
                    continue
                try:
                    self._adopt(path, *shards.read(path))
                except DamagedShardError as error:
                    self.damaged.append((path, str(error)))
                except FileNotFoundError:  # removed since it was listed
                    continue
                except OSError as error:
                    self.unreadable.append((path, f"cannot be read: {error.strerror}"))

    def missing(self, keys: np.ndarray | Iterable[bytes]) -> np.ndarray:
        """Which of the keys, uint8 `[N, 32]`, are not there: bool `[N]`."""
        return self._index.find(as_keys(keys))[0] < 0

    def get(self, key: bytes) -> Mapping[str, np.ndarray]:
        """The arrays under a key: read-only views of the file, read when they are looked at.

        Raises:
            KeyError: there are none.
            DamagedEntryError: they are not what was written. Looked for only with `verify`.
            UserError: they were there, and somebody removed them.
        """
        shard, row = self._locate(key)
        if shard is None:
            raise KeyError(bytes(key).hex())
        try:
            return self._read(bytes(key), shard, row)
        except FileNotFoundError:
            pass
        # Another process may have written the entry into another shard.
        self.refresh()
        shard, row = self._locate(key)
        try:
            if shard is not None:
                return self._read(bytes(key), shard, row)
        except FileNotFoundError:
            pass
        raise UserError(
            f"an encoding that is needed was removed from {self.directory} while it was in use. "
            "Start again: what is missing is encoded anew. While runs use a cache, do not prune "
            "or delete it."
        )

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
        """Encode what is missing, or this process's share of it, and keep it.

        What is written is found again whatever happens next. A process that is killed loses the
        shard it was writing, at most `max_shard_bytes`.

        Args:
            kind: the folder, such as `text`.
            keys: uint8 `[N, 32]`, all different, the same list in all processes.
            encode: takes `batch_size` positions in `keys`, the last one repeated where fewer are
                left; returns arrays `[batch_size, ...]` by name, always of the same shapes and
                dtypes. They are written while the next batch is encoded, and must not change.
            describe: what is at a position, for the user: `the caption 'a red circle'`.
            about: with what it is encoded, in words, for whoever looks at the cache.

        Raises:
            UserError: the directory cannot be written to, the disk is full, or NaN or infinity in
                what was encoded.
        """
        assert shards.KIND_NAME.fullmatch(kind), kind
        keys = as_keys(keys)
        assert not has_repeats(keys), "keys repeat"
        self.refresh()
        is_missing = self.missing(keys)
        units = divide(len(keys), self._world_size, batch_size, self._max_shard_entries)
        own = []
        for unit in units[self._rank :: self._world_size]:
            positions = np.flatnonzero(is_missing[unit.start : unit.stop]) + unit.start
            if len(positions):
                own.append(positions)
        total = sum(map(len, own))
        if not total:
            return
        folder = self._make_folder(kind)
        batches = Batches(encode, describe, batch_size)
        # How large an entry is shows only now.
        ready: dict[str, np.ndarray] | None = batches.encode(own[0][:batch_size])
        each = shards.bytes_per_entry(batches.specs)
        self._require_space(total, each)
        limit = max(self._max_shard_bytes // each // batch_size, 1) * batch_size
        # Of what is missing in a unit, always so many make a shard: a run that was killed goes on
        # with the next shard, whose entries and batches are those it would have had.
        pieces = [unit[at : at + limit] for unit in own for at in range(0, len(unit), limit)]
        with ExitStack() as unfinished, Behind() as behind:
            for piece in pieces:
                layout = shards.make_layout(kind, about or {}, len(piece), batches.specs)
                piece_keys = keys[piece]
                path = os.path.join(folder, shards.file_name(layout, piece_keys))
                with self.writing(each * len(piece)):
                    writer = Writer(folder, layout, piece_keys)
                unfinished.callback(writer.abandon)
                for at in range(0, len(piece), batch_size):
                    if ready is None and self._exists(path):  # another process was faster
                        behind.do(self._give_way, writer, piece_keys)
                        break
                    rows = ready or batches.encode(piece[at : at + batch_size])
                    ready = None
                    behind.do(self._add, writer, rows)
                else:
                    behind.do(self._finish, writer, piece_keys)

    def require_writable(self) -> None:
        """Make the directory, to find out before encoders are read.

        Raises:
            UserError: it cannot be written to.
        """
        self._make_writable(self.directory)

    def discard(self, keys: np.ndarray | Iterable[bytes]) -> None:
        """Drop entries, if they are there, and with them what else is damaged in their shards.

        Raises:
            UserError: the directory cannot be written to.
        """
        keys = as_keys(keys)
        while True:  # an entry may stand in several shards
            found, rows = self._index.find(keys)
            here = found >= 0
            if not here.any():
                return
            for number in np.unique(found[here]):
                self.drop_rows(self._shards[number].path, rows[found == number].tolist())

    def drop_rows(self, path: str, rows: Iterable[int]) -> None:
        """Write a shard anew without some rows, and without those that are damaged.

        Raises:
            UserError: the directory cannot be written to.
        """
        with self._lock:
            try:
                layout, keys = shards.read(path)
                dropped = {*rows, *shards.damaged_rows(path, layout)}
                kept = [row for row in range(layout.count) if row not in dropped]
                with self.writing(shards.bytes_per_entry(layout.specs) * len(kept)):
                    if kept:
                        smaller = shards.copy_rows(path, layout, keys, kept)
                        used = os.stat(path).st_mtime_ns
                        os.utime(smaller, ns=(used, used))
                        self._adopt(smaller, *shards.read(smaller))
                    os.unlink(path)
                    atomic.sync(os.path.dirname(path))
            except FileNotFoundError:  # another process did the same
                pass
            except DamagedShardError as error:
                self.damaged.append((path, str(error)))
            self._forget([path])

    def touch(self, keys: np.ndarray | Iterable[bytes]) -> None:
        """Note that entries are in use: `launcher cache prune` goes by that.

        It is the time of last change of the files. Where they cannot be changed, nothing happens.
        """
        found = np.unique(self._index.find(as_keys(keys))[0])
        for number in found[found >= 0]:
            try:
                os.utime(self._shards[number].path)
            except OSError as error:
                # ENOENT: removed by somebody; whoever reads it will say so.
                if error.errno not in (*_READ_ONLY, errno.ENOENT):
                    raise

    def _locate(self, key: bytes) -> tuple[Shard | None, int]:
        found, rows = self._index.find(as_keys([key]))
        number = int(found[0])
        return (self._shards[number] if number >= 0 else None), int(rows[0])

    def _read(self, key: bytes, shard: Shard, row: int) -> dict[str, np.ndarray]:
        path, layout = shard
        file = self._files.open(path)
        if file.size != layout.size:
            self._files.close(path)
            raise DamagedEntryError(key, path, layout.arrays[0].name)
        entry = {}
        for array in layout.arrays:
            data = map_bytes(file, array.offset + row * array.row_bytes, array.row_bytes)
            if self._verify:
                stored = os.pread(file.descriptor, 8, array.checksums + row * 8)
                if shards.checksum(data) != int.from_bytes(stored, "little"):
                    self._files.close(path)
                    raise DamagedEntryError(key, path, array.name)
            entry[array.name] = data.view(array.dtype).reshape(array.shape)
        return entry

    def _add(self, writer: Writer, rows: Mapping[str, np.ndarray]) -> None:
        with self.writing(writer.size):
            writer.add(rows)

    def _finish(self, writer: Writer, keys: np.ndarray) -> None:
        with self.writing(writer.size):
            if self._exists(writer.path):
                writer.abandon()
            else:
                writer.finish()
        self._adopt(writer.path, writer.layout, keys)

    def _give_way(self, writer: Writer, keys: np.ndarray) -> None:
        writer.abandon()
        self._adopt(writer.path, writer.layout, keys)

    def _exists(self, path: str) -> bool:
        """True if a shard is there, and whole as far as its header tells."""
        if not os.path.exists(path):
            return False
        try:
            shards.read(path)
        except (DamagedShardError, OSError):
            return False
        return True

    def _adopt(self, path: str, layout: Layout, keys: np.ndarray) -> None:
        with self._lock:
            self.damaged = [entry for entry in self.damaged if entry[0] != path]
            self.unreadable = [entry for entry in self.unreadable if entry[0] != path]
            if path not in self._numbers:
                self._numbers[path] = len(self._shards)
                self._shards.append(Shard(path, layout))
                self._index.add(self._numbers[path], keys)

    def _forget(self, paths: Collection[str]) -> None:
        for path in paths:
            self._files.close(path)
        self._index.remove([self._numbers.pop(path) for path in paths if path in self._numbers])

    def _list(self) -> list[str]:
        """The paths of all shards, sorted.

        Raises:
            UserError: they cannot be listed.
        """
        paths = []
        try:
            with os.scandir(self.directory) as entries:
                folders = [e.path for e in entries if shards.KIND_NAME.fullmatch(e.name)]
            for folder in folders:
                if os.path.isdir(folder):
                    with os.scandir(folder) as entries:
                        paths += [e.path for e in entries if shards.SHARD_NAME.fullmatch(e.name)]
        except FileNotFoundError:
            return sorted(paths)
        except OSError as error:
            raise UserError(
                f"the cache {self.directory} cannot be read: {error.strerror}"
                f"{_at(error, self.directory)}. {_ELSEWHERE}"
            ) from error
        return sorted(paths)

    def _make_folder(self, kind: str) -> str:
        """The folder of a kind, which can be written to."""
        folder = self.directory / kind
        self._make_writable(folder)
        return str(folder)

    def _make_writable(self, folder: Path) -> None:
        with self.writing(0):
            folder.mkdir(parents=True, exist_ok=True)
            # Asked, and not found out by the first shard: until that is made, hours may pass.
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    def _require_space(self, count: int, each: int) -> None:
        free = shutil.disk_usage(self.directory).free
        if free < count * each:
            raise UserError(
                f"the cache {self.directory} is on a disk with {size_text(free)} left, and "
                f"{count} encodings of {size_text(each)} each are missing in it, "
                f"{size_text(count * each)}. {_FREE}"
            )

    @contextmanager
    def writing(self, size: int) -> Iterator[None]:
        """What the system says of writing so many bytes, said to the user."""
        try:
            yield
        except FileNotFoundError as error:
            if os.path.isdir(self.directory):
                raise
            raise UserError(
                f"the cache {self.directory} was removed while it was written to. Start again."
            ) from error
        except OSError as error:
            if error.errno in _FULL:
                raise UserError(
                    f"the disk of the cache {self.directory} is full ({error.strerror}): "
                    f"{size_text(size)} were to be written, and {_left(self.directory)}. What was "
                    f"finished before is kept. {_FREE}"
                ) from error
            what = "is read-only" if error.errno in _READ_ONLY else "cannot be written to"
            raise UserError(
                f"the cache {self.directory} {what}: {error.strerror}"
                f"{_at(error, self.directory)}. {_ELSEWHERE}"
            ) from error


_ELSEWHERE = "Give a folder of your own with data.cache_dir, or have the permissions changed."
_FREE = (
    "Free some space (`launcher cache prune` removes what is no longer used), or keep the cache "
    "elsewhere with data.cache_dir."
)


def _at(error: OSError, directory: Path) -> str:
    """The file that an error is about, if it is not the one that the sentence names."""
    return f" ({error.filename})" if error.filename not in (None, str(directory)) else ""


def _left(directory: Path) -> str:
    try:
        return f"{size_text(shutil.disk_usage(directory).free)} are left"
    except OSError:
        return "nobody can say how much is left"
