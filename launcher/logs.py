"""The logs of a run: files that a line is added to, of one JSON object each.

Unbuffered: a line is in the file once `append` returns, and a run that is killed loses at most the
one that it was writing.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.training.errors import UserError

#: A line a step.
METRICS = "metrics.jsonl"
#: A line a validation.
FIGURES = "validation/figures.jsonl"
#: A line each time that the run was continued.
RESUMES = "resumes.jsonl"
#: Those that lose the lines of steps that are done again.
SHORTENED = (METRICS, FIGURES)


class Logs:
    """The logs in a folder, by their names in it, such as `metrics.jsonl`.

    A log that was opened is locked until this process ends, so that no second one adds to it.

    Args:
        folder: where they are.
        is_main: False: nothing is written.
    """

    def __init__(self, folder: Path, is_main: bool = True) -> None:
        self._folder = folder
        self._is_main = is_main
        self._files: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}

    def create(self, name: str) -> Path:
        """Begin a log that must not exist yet.

        Raises:
            FileExistsError: it does.
        """
        return self._open(name, "xb")

    def reopen(self, name: str) -> Path:
        """Go on with a log, which may exist.

        Raises:
            UserError: another process has it open.
        """
        return self._open(name, "ab")

    def go_back(self, sizes: Mapping[str, int]) -> None:
        """Forget the lines that were written after a checkpoint: what they tell of is done again.

        Args:
            sizes: of the logs when the checkpoint was taken, in bytes; from `sizes`. A log of
                `SHORTENED` that is not named was begun later.

        Raises:
            UserError: one of them is shorter.
        """
        for name, size in {**dict.fromkeys(SHORTENED, 0), **sizes}.items():
            if not size and not (self._folder / name).exists():
                continue
            self.reopen(name)
            if self._sizes[name] < size:
                raise UserError(
                    f"{self._folder / name} has {self._sizes[name]} bytes, and had {size} when the "
                    "checkpoint was written: lines are missing. Restore it from a copy, or remove "
                    "the run and begin anew."
                )
            self._files[name].truncate(size)
            self._sizes[name] = size

    def copy(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """Begin with the lines of another run, up to a checkpoint.

        Args:
            folder: of the other run; a log that is not there any more is left out.
            sizes: as for `go_back`.
        """
        for name, size in sizes.items():
            self.reopen(name)
            if (folder / name).is_file():
                with open(folder / name, "rb") as file:
                    self._add(name, file.read(size))

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line. The log is begun with its first.

        JSON has neither NaN nor infinity: both are written as null, which pandas and the like read
        as a missing number, so that the column stays numeric.

        Args:
            record: what JSON can hold, and numpy's scalars.

        Raises:
            TypeError: it cannot hold a value.
        """
        line = json.dumps({key: _plain(value) for key, value in record.items()}).encode() + b"\n"
        if not self._is_main:
            return
        if name not in self._files:
            self.reopen(name)
        self._add(name, line)

    def sizes(self) -> dict[str, int]:
        """The logs that have been opened, and their sizes in bytes."""
        return dict(self._sizes)

    def sync(self) -> None:
        """Make durable what was written."""
        for file in list(self._files.values()):
            os.fsync(file.fileno())

    def are_in_place(self) -> bool:
        """False if somebody has removed or moved one that is open."""
        try:
            return all(
                os.path.samestat(os.fstat(file.fileno()), os.stat(self._folder / name))
                for name, file in self._files.items()
            )
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """No more lines will be written. May be called twice."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _add(self, name: str, content: bytes) -> None:
        """Write all of it or nothing."""
        file, left = self._files[name], content
        try:
            while left:  # a disk that is getting full takes a part of it
                left = left[file.write(left) :]
        except OSError:
            file.truncate(self._sizes[name])
            raise
        self._sizes[name] += len(content)

    def _open(self, name: str, mode: str) -> Path:
        path = self._folder / name
        if name in self._files:
            return path
        path.parent.mkdir(exist_ok=True)
        file = open(path, mode, buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(
                f"another process is writing to {path}: the run in {self._folder} is still going "
                "on. Wait for its end, or stop it (SIGTERM lets it save first)."
            ) from None
        self._files[name] = file
        self._sizes[name] = os.fstat(file.fileno()).st_size
        return path


def is_locked(path: Path) -> bool:
    """Whether a process adds to a log at this moment."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # gone with the file
    except BlockingIOError:
        return True
    except OSError:  # not there, not readable, or on a file system without locks
        return False
    return False


def _plain(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0:  # numpy scalars
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
