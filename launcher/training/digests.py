"""SHA-256 digests of files, remembered, so that a file is read again only if it may have changed.

    with remembered(Path("cache/digests"), "data/images") as digest:
        digest("data/images/01.png")       # 32 bytes

A file counts as unchanged if size, inode and the times of its last change (`mtime`, and `ctime`,
which nobody can set) are those at which it was read; one that had changed within two seconds
before it was read is not remembered, because the times are that coarse on some file systems.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from launcher.training import atomic

_COARSEST_CLOCK = 2.0  # seconds; FAT's

Digest = Callable[[str | os.PathLike[str]], bytes]


@contextmanager
def remembered(memory: Path | None, subject: str) -> Iterator[Digest]:
    """A function from path to digest.

    Args:
        memory: the folder to remember in, made if it does not exist; None: do not. Where it cannot
            be written, what is new is not remembered.
        subject: what the files belong to, such as the data set; each has a file in the folder.
    """
    file = None
    known: dict[str, list[Any]] = {}
    if memory is not None:
        file = memory / f"{hashlib.sha256(subject.encode()).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError, TypeError):  # not there, or damaged: nothing is known
            known = dict(json.loads(file.read_text(encoding="utf-8")))
    changed = False

    def digest(path: str | os.PathLike[str]) -> bytes:
        nonlocal changed
        name = os.path.abspath(path)
        state = _state(name)
        entry = known.get(name)
        if isinstance(entry, list) and entry[:-1] == state:
            return bytes.fromhex(entry[-1])
        now = time.time()
        value = of_file(name)
        if _state(name) == state and max(state[1:3]) / 1e9 < now - _COARSEST_CLOCK:
            known[name] = [*state, value.hex()]
            changed = True
        return value

    yield digest
    if file is not None and changed:
        _write(file, known)


def of_files(memory: Path | None, files: Sequence[Path]) -> list[bytes]:
    """The digests of the files that a model's weights are in, remembered.

    Args:
        memory: see `remembered`.
        files: at least one, all in one folder.
    """
    with remembered(memory, str(files[0].parent)) as digest:
        return [digest(file) for file in files]


def of_file(path: str | os.PathLike[str], between: Callable[[], object] | None = None) -> bytes:
    """The digest of a file's bytes, read now.

    Args:
        between: called after each megabyte.
    """
    # hashlib.file_digest is Python 3.11's.
    value, buffer = hashlib.sha256(), bytearray(1 << 20)
    view = memoryview(buffer)
    with open(path, "rb") as file:
        while count := file.readinto(buffer):
            value.update(view[:count])
            if between is not None:
                between()
    return value.digest()


def _state(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _write(file: Path, known: dict[str, list[Any]]) -> None:
    with suppress(OSError):  # only a memory: a folder that is full or not writable costs time alone
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(file, json.dumps(known))
