"""The logs of a run: files that a line is added to, of one JSON object each.

Unbuffered: a line is in the file once `append` returns, and a run that is killed loses at most the
one that it was writing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.training import atomic
from launcher.training.errors import UserError

#: A line a step.
METRICS = "metrics.jsonl"
#: A line a validation.
FIGURES = "validation/figures.jsonl"
#: A line each time that the run was continued.
RESUMES = "resumes.jsonl"
#: Those that lose the lines of steps that are done again, also where a checkpoint knows nothing of
#: them.
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

    def go_back(self, sizes: Mapping[str, int], step: int) -> list[str]:
        """Forget the lines that were written after a checkpoint: what they tell of is done again.

        Args:
            sizes: of the logs when the checkpoint was taken, in bytes; from `sizes`. A log of
                `SHORTENED` that is not named was begun later.
            step: that of the checkpoint.

        Returns:
            What is to be said of logs that are not what they were then, in sentences.
        """
        said = []
        for name, size in {**dict.fromkeys(SHORTENED, 0), **sizes}.items():
            path = self._folder / name
            # Each time that the run was continued has its line in RESUMES, whatever came of it.
            if name == RESUMES or (not size and not path.exists()):
                continue
            self.reopen(name)
            kept = _size_until(path, size, step)
            if kept != size:
                said.append(_changed(path, step))
            self._files[name].truncate(kept)
            self._sizes[name] = kept
        return said

    def copy(self, folder: Path, sizes: Mapping[str, int], step: int) -> list[str]:
        """Begin with the lines of another run, up to a checkpoint.

        Args:
            folder: of the other run.
            sizes, step: as for `go_back`.

        Returns:
            See `go_back`.
        """
        said = []
        for name, size in sizes.items():
            self.reopen(name)
            kept = _size_until(folder / name, size, step)
            if kept != size:
                said.append(_changed(folder / name, step))
            if kept:
                with open(folder / name, "rb") as file:
                    self._add(name, file.read(kept))
        return said

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
        except OSError as error:
            file.truncate(self._sizes[name])
            error.filename = str(self._folder / name)
            raise
        self._sizes[name] += len(content)

    def _open(self, name: str, mode: str) -> Path:
        path = self._folder / name
        if name in self._files:
            return path
        path.parent.mkdir(exist_ok=True)
        file = open(path, mode, buffering=0)  # noqa: SIM115
        try:
            _lock(file)
        except BlockingIOError:
            file.close()
            raise UserError(
                f"another process is writing to {path}: the run in {self._folder} is still going "
                "on. Wait for its end, or stop it (SIGTERM lets it save first)."
            ) from None
        except OSError as error:
            # Some file systems of clusters have no locks. Then nobody is kept from starting a
            # second run in the folder; but the first one can run.
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                file.close()
                raise
        atomic.sync(path.parent)  # a checkpoint counts on the log being there after a power cut
        self._files[name] = file
        self._sizes[name] = os.fstat(file.fileno()).st_size
        return path


def _lock(file: Any) -> None:
    """Raises BlockingIOError if another process has it; one that only looks (`is_open`) lets go of
    it in a moment."""
    for _ in range(5):
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_open(path: Path) -> bool | None:
    """Whether a process has a log open, so that its run goes on.

    Returns:
        None: the file cannot be read, or its file system has no locks.
    """
    try:
        # Given back at once, with the file. A shared lock waits for nobody.
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def count_lines(path: Path) -> int:
    """The lines of a log; 0: there is none."""
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _size_until(path: Path, size: int, step: int) -> int:
    """The bytes of a log's lines up to a step: the size that a checkpoint noted, if that is where
    such a line ends; else as many as there are such lines from the beginning on."""
    if not size or not path.is_file():
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, size - _LONGEST))
        end = file.read(min(size, _LONGEST))
        if file.tell() == size and _step_of(end[end.rfind(b"\n", 0, -1) + 1 :]) in range(step + 1):
            return size
        file.seek(0)
        kept = 0
        for line in file:
            if _step_of(line) not in range(step + 1):
                break
            kept += len(line)
        return kept


#: Bytes; more than any line has.
_LONGEST = 1 << 20


def _step_of(line: bytes) -> int | None:
    """The step of a whole line; None: it is none."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _changed(path: Path, step: int) -> str:
    return (
        f"{path} is not what it was when the checkpoint was written: only its whole lines up to "
        f"step {step}, of {count_lines(path)} lines, are kept"
    )


def _plain(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0:  # numpy scalars
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
