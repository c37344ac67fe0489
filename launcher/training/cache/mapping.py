"""Bytes of files as arrays, without reading them: memory maps of just these bytes.

One map per array and not per file: the pages of a map that was read count as this process's
memory until it is unmapped, and these are unmapped with the arrays that show them.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

#: Bytes that Linux reads ahead, unless it is set up otherwise.
_READ_AHEAD = 128 * 1024


class OpenFile:
    """A file open for reading; closed when nobody holds it any more.

    Attributes:
        descriptor: the operating system's number of it.
        size: in bytes, when it was opened.
    """

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.descriptor).st_size

    def __del__(self, _close: Any = os.close) -> None:
        if hasattr(self, "descriptor"):
            _close(self.descriptor)


class OpenFiles:
    """The files used last stay open. May be used from several threads.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int = 128) -> None:
        self._limit = limit
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: str) -> OpenFile:
        """The file, which stays open at least as long as the caller holds it."""
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = OpenFile(path)
                if len(self._files) > self._limit:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(path)
            return file

    def close(self, path: str) -> None:
        """Keep a file open no longer."""
        with self._lock:
            self._files.pop(path, None)


def map_bytes(file: OpenFile, offset: int, length: int) -> np.ndarray:
    """A part of a file: uint8 `[length]`, read-only. It begins to be read into the system's cache.

    The part must be in the file: behind its end, reading would kill the process (SIGBUS).
    """
    if not length:
        empty = np.empty(0, np.uint8)
        empty.setflags(write=False)
        return empty
    # All of it is asked for at once: touched page by page, it would be guessed what comes next, and
    # up to twice as much would be read. More than the limit in one call would be cut off.
    for start in range(offset, offset + length, _READ_AHEAD):
        count = min(_READ_AHEAD, offset + length - start)
        os.posix_fadvise(file.descriptor, start, count, os.POSIX_FADV_WILLNEED)
    skip = offset % mmap.ALLOCATIONGRANULARITY
    return np.asarray(_Map(file.descriptor, offset - skip, length + skip))[skip:]


class _Map:
    """A memory map that numpy can look at, gone with the last array that does.

    Not `mmap.mmap`: before Python 3.13 each of these keeps a file descriptor of its own, and a
    batch that is being put together would need hundreds.
    """

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        address = _libc().mmap(
            None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset
        )  # fmt: skip
        if address == ctypes.c_void_p(-1).value:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._munmap = _libc().munmap
        self._where = address, length
        self.__array_interface__ = {
            "data": (address, True),  # True: read-only
            "shape": (length,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        if hasattr(self, "_where"):
            self._munmap(*self._where)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t
    number = ctypes.c_int
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, size, number, number, number, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, size]
    return libc
