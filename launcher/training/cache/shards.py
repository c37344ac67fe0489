"""Shards: files of encodings, each written once and never changed.

A shard is a safetensors file, in this order, for n entries:

    __metadata__        format, kind, and with what the entries were made (`about.*`)
    keys                U8   [n, 32]
    checksum.NAME       U64  [n]        xxh3_64 of the row's bytes, for each array
    NAME                any  [n, ...]   the arrays, wider elements first: all of them are aligned

The file's name is the SHA-256 digest of header and keys, so damage to either shows when the file
is opened; damage to the data shows against the checksums. Nothing in it depends on when or by whom
it was written: whoever encodes the same entries again writes the same file.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from .. import atomic
from ..safetensors_files import TensorInfo, header_bytes, numpy_dtype
from .encoding import Spec
from .index import KEY_BYTES

FORMAT = "launcher-encodings-1"
SUFFIX = ".safetensors"
#: What tells a shard from any other file; nothing else is ever read or removed.
SHARD_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
PARTIAL_NAME = re.compile(r"\.[0-9a-f]{64}\.\d+\.[0-9a-f]{8}\.partial")
KIND_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")

_NAMES = {
    numpy_dtype(name): name
    for name in ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8")
} | {np.dtype(np.bool_): "BOOL"}
_KEYS, _CHECKSUM, _ABOUT = "keys", "checksum.", "about."
#: Read at once when a shard is opened: header and keys of 256 entries fit.
_FIRST_READ = 16 * 1024
_MAX_HEADER_BYTES = 1024 * 1024
#: Seconds after which an unfinished file is nobody's, where locks cannot tell.
_LONG_AGO = 24 * 3600


class DamagedShardError(Exception):
    """A shard is not what its name says. The message says why, as the end of a sentence."""


class DamagedEntryError(Exception):
    """What is read of an entry is not what was written.

    Attributes:
        key: the entry's.
        path: the shard that holds it.
        name: the array.
    """

    def __init__(self, key: bytes, path: str, name: str) -> None:
        super().__init__(f"{name!r} of entry {key.hex()} in {path} is damaged")
        self.key = key
        self.path = path
        self.name = name


@dataclass(frozen=True)
class Array:
    """Where the rows of one array are in a shard. Offsets in bytes from the file's beginning."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of one entry
    offset: int
    row_bytes: int
    checksums: int  # offset


@dataclass(frozen=True)
class Layout:
    """What the header of a shard says."""

    kind: str
    about: tuple[tuple[str, str], ...]
    count: int
    arrays: tuple[Array, ...]
    header: bytes
    size: int

    @property
    def specs(self) -> dict[str, Spec]:
        return {array.name: (array.dtype, array.shape) for array in self.arrays}


def checksum(data: Any) -> int:
    """The checksum of a row's bytes: a contiguous array, or any buffer."""
    return xxhash.xxh3_64_intdigest(data)


def bytes_per_entry(specs: Mapping[str, Spec]) -> int:
    """What an entry takes in a shard."""
    return KEY_BYTES + sum(8 + dtype.itemsize * math.prod(s) for dtype, s in specs.values())


def make_layout(
    kind: str, about: Mapping[str, str], count: int, specs: Mapping[str, Spec]
) -> Layout:
    """The layout of a shard with so many entries."""
    metadata = {"format": FORMAT, "kind": kind}
    metadata |= {_ABOUT + name: str(about[name]) for name in sorted(about)}
    order = sorted(specs, key=lambda name: (-specs[name][0].itemsize, name))
    tensors = {_KEYS: TensorInfo("U8", (count, KEY_BYTES))}
    tensors |= {_CHECKSUM + name: TensorInfo("U64", (count,)) for name in order}
    for name in order:
        dtype, shape = specs[name]
        if dtype not in _NAMES:
            raise ValueError(f"{name!r} is {dtype}, which cannot be kept")
        if name in tensors:
            raise ValueError(f"no array can be called {name!r}")
        tensors[name] = TensorInfo(_NAMES[dtype], (count, *shape))
    return _parse(header_bytes(tensors, metadata))


@functools.lru_cache(maxsize=1024)
def _parse(header: bytes) -> Layout:
    """Thousands of shards have but a few different headers."""
    try:
        tensors = json.loads(header[8:])
        metadata = tensors.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise DamagedShardError(f"is of format {metadata['format']!r}, not {FORMAT!r}")
        count = tensors.pop(_KEYS)["shape"][0]
        start, size = len(header), len(header)
        arrays = []
        for name, entry in tensors.items():
            begin, end = entry["data_offsets"]
            size = max(size, start + end)
            if name.startswith(_CHECKSUM) and name.removeprefix(_CHECKSUM) in tensors:
                continue
            dtype, shape = numpy_dtype(entry["dtype"]), tuple(entry["shape"][1:])
            row_bytes = dtype.itemsize * math.prod(shape)
            checksums = start + tensors[_CHECKSUM + name]["data_offsets"][0]
            arrays.append(Array(name, dtype, shape, start + begin, row_bytes, checksums))
        about = {k.removeprefix(_ABOUT): v for k, v in metadata.items() if k.startswith(_ABOUT)}
        kind = metadata["kind"]
        return Layout(kind, tuple(about.items()), count, tuple(arrays), header, size)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DamagedShardError("has a damaged header") from error


def file_name(layout: Layout, keys: np.ndarray) -> str:
    """The name of the shard of these entries."""
    return hashlib.sha256(layout.header + keys.tobytes()).hexdigest() + SUFFIX


def read(path: str) -> tuple[Layout, np.ndarray]:
    """Header and keys, uint8 `[n, 32]`, of a shard.

    Raises:
        DamagedShardError: it is not whole.
        OSError: it cannot be read; FileNotFoundError if it is not there.
    """
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        head = os.pread(descriptor, _FIRST_READ, 0)
        start = 8 + int.from_bytes(head[:8], "little")
        if size < 8 or start > min(size, _MAX_HEADER_BYTES):
            raise DamagedShardError("has a damaged header, or is cut short")
        if len(head) < start:
            head = _pread(descriptor, start, 0)
        layout = _parse(head[:start])
        end = start + layout.count * KEY_BYTES
        if len(head) < end:
            head += _pread(descriptor, end - len(head), len(head))
    # This holds for the header, too: whoever wrote it knew what they wrote.
    if hashlib.sha256(head[:end]).hexdigest() + SUFFIX != os.path.basename(path):
        raise DamagedShardError("has a damaged header or damaged keys")
    if size != layout.size:
        raise DamagedShardError(f"has {size} bytes and should have {layout.size}")
    return layout, np.frombuffer(head, np.uint8, end - start, start).reshape(-1, KEY_BYTES)


def damaged_rows(
    path: str, layout: Layout, advance: Callable[[int], None] = lambda count: None
) -> dict[int, list[str]]:
    """Rows whose data do not fit their checksums, with the names of the damaged arrays.

    Args:
        path: the shard.
        layout: what its header says.
        advance: is told how many bytes more have been read.
    """
    damaged: dict[int, list[str]] = {}
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        for array in layout.arrays:
            stored = _pread(descriptor, 8 * layout.count, array.checksums)
            stored += bytes(8 * layout.count - len(stored))
            buffer = bytearray(array.row_bytes)
            for row, expected in enumerate(np.frombuffer(stored, "<u8").tolist()):
                whole = _pread_into(descriptor, buffer, array.offset + row * array.row_bytes)
                if not whole or checksum(buffer) != expected:
                    damaged.setdefault(row, []).append(array.name)
                advance(array.row_bytes)
    return damaged


class Writer:
    """Writes a shard beside its place, batch by batch, and puts it there when it is whole.

    The unfinished file is locked while its writer lives, so that `is_abandoned` can tell.

    Args:
        folder: where the shard goes.
        layout: of `make_layout`.
        keys: uint8 `[n, 32]`.

    Attributes:
        path: where it will be.
        size: in bytes.
        layout: as given.
    """

    def __init__(self, folder: str, layout: Layout, keys: np.ndarray) -> None:
        assert keys.shape == (layout.count, KEY_BYTES), keys.shape
        self._folder = folder
        self.layout = layout
        self._row = 0
        self.size = layout.size
        name = file_name(layout, keys)
        self.path = os.path.join(folder, name)
        self._partial, self._file = _create(folder, name.removesuffix(SUFFIX))
        try:
            _pwrite(self._file, layout.header + keys.tobytes(), 0)
        except BaseException:
            self.abandon()
            raise

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Write the next entries: arrays `[k, ...]` by name, contiguous."""
        count = 0
        for array in self.layout.arrays:
            values = rows[array.name]
            assert values.dtype == array.dtype and values.shape[1:] == array.shape, array
            count = len(values)
            elements = math.prod(array.shape)
            data = values.reshape(count, elements).view(np.uint8)
            checksums = [checksum(row) for row in data]
            _pwrite(self._file, data, array.offset + self._row * array.row_bytes)
            _pwrite(
                self._file, np.array(checksums, "<u8").tobytes(), array.checksums + self._row * 8
            )
        self._row += count

    def finish(self) -> None:
        """Put the shard in its place, where it then is whole, whatever happens."""
        assert self._row == self.layout.count, (self._row, self.layout.count)
        os.fsync(self._file)
        os.rename(self._partial, self.path)
        self._close()
        atomic.sync(self._folder)

    def abandon(self) -> None:
        """Leave nothing behind. May be called after `finish`, and twice."""
        if self._file >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._partial)
            self._close()

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1


def copy_rows(path: str, layout: Layout, keys: np.ndarray, rows: Sequence[int]) -> str:
    """Write a shard beside an existing one that holds some of its rows.

    Returns:
        The new shard's path.
    """
    folder = os.path.dirname(path)
    smaller = make_layout(layout.kind, dict(layout.about), len(rows), layout.specs)
    writer = Writer(folder, smaller, keys[list(rows)])
    try:
        with open(path, "rb", buffering=0) as file:
            for row in rows:
                entry = {}
                for array in layout.arrays:
                    data = np.empty(array.row_bytes, np.uint8)
                    _pread_into(file.fileno(), data, array.offset + row * array.row_bytes)
                    entry[array.name] = data.view(array.dtype).reshape(1, *array.shape)
                writer.add(entry)
        writer.finish()
    finally:
        writer.abandon()
    return writer.path


def is_abandoned(path: str) -> bool:
    """True if the writer of an unfinished shard is dead."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # NFS locks nothing that is open for reading only
    except OSError:  # it has just been finished, or is somebody else's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return time.time() - os.fstat(descriptor).st_mtime > _LONG_AGO
    finally:
        os.close(descriptor)
    return True


def _create(folder: str, digest: str) -> tuple[str, int]:
    """A new file that nobody else writes, locked: path and descriptor."""
    while True:
        # Processes of several machines may share the folder, and their numbers may be equal.
        name = f".{digest}.{os.getpid()}.{secrets.token_hex(4)}.partial"
        path = os.path.join(folder, name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path):
            return path, descriptor
        os.close(descriptor)  # it was removed as abandoned before it was locked


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    """Up to `count` bytes; fewer only at the end of the file."""
    parts = []
    while count > 0 and (part := os.pread(descriptor, count, offset)):
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return b"".join(parts)


def _pread_into(descriptor: int, buffer: Any, offset: int) -> bool:
    """Fill a buffer; False if the file ends before."""
    rest = memoryview(buffer)
    while len(rest):
        count = os.preadv(descriptor, [rest], offset)
        if not count:
            return False
        rest = rest[count:]
        offset += count
    return True


def _pwrite(descriptor: int, data: Any, offset: int) -> None:
    rest = memoryview(data)
    if not rest.nbytes:
        return
    rest = rest.cast("B")
    while len(rest):
        count = os.pwrite(descriptor, rest, offset)
        rest = rest[count:]
        offset += count
