"""The folder of a run: claimed once, never written over.

A run leaves in its output directory `config.yaml` (the complete configuration),
`provenance.json` (what it ran with), `metrics.jsonl` (a line a step), and what hooks add:
exported weights and reports. `problems` looks before anything is loaded and touches nothing;
`RunDir.claim` then takes the folder, and of two runs that try at the same moment one is refused.

    with RunDir.claim("runs/first", config_text) as run:
        run.write_provenance(...)
        run.write_metrics(step=1, loss=0.5, lr=1e-5, grad_norm=0.1, ...)

If the block is left by an exception before anything was recorded, what this class wrote is
removed again, so that the same command can be repeated once the mistake is mended.

`RunDir.reopen` takes the folder of a run that is to be continued.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from launcher.logs import FIGURES, METRICS, Logs, is_open
from launcher.plugin_checks import display_path
from launcher.provenance import provenance
from launcher.training import atomic
from launcher.training.errors import UserError

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"

#: What shows that a folder holds a run, finished or not.
_MARKS_OF_A_RUN = (CONFIG, PROVENANCE, METRICS, "precision.json", "validation", "checkpoint-*")
#: What a run could write over without these patterns knowing the recipe: weights in the folder
#: or one folder below it, which is where diffusers keeps them.
_MARKS_OF_WEIGHTS = ("model_index.json", "*.safetensors", "*/*.safetensors")

_WAY_OUT = (
    "choose another train.output_dir, go on with the run by --resume latest, or remove the folder "
    "if it is no longer needed"
)


def resume_command(path: Path) -> str:
    """What a user types to continue the run of a folder."""
    return f"launcher --resume {shlex.quote(display_path(path))}"


class FolderGoneError(Exception):
    """The folder of the run is no longer where it was."""


def problems(output_dir: str | Path) -> list[str]:
    """Why a run cannot write to a folder; empty if it can. Touches nothing.

    Args:
        output_dir: as the user wrote it; `~` is the home directory. It may exist and hold
            single files that have nothing to do with a run, such as a log.
    """
    try:
        path = expand(output_dir)
        problem = _occupied(path) or unwritable(path)
    except (OSError, ValueError) as error:
        problem = f"cannot be used: {_reason(error)}; choose another train.output_dir"
    return [f"train.output_dir {str(output_dir)!r} {problem}."] if problem else []


class RunDir:
    """The claimed folder of a run, and what is written into it.

    Attributes:
        path: the folder, absolute.
        logs: its logs.
    """

    def __init__(self, path: Path, is_main: bool, created: Sequence[Path]) -> None:
        """Use `claim`."""
        self.path = path
        self._is_main = is_main
        self._created = list(created)
        self._disposable: list[Path] = []
        self.logs = Logs(path, is_main)
        self._is_kept = False

    @classmethod
    def claim(cls, output_dir: str | Path, config_text: str, *, is_main: bool = True) -> RunDir:
        """Take a folder for a new run, by writing `config.yaml` into it.

        Args:
            output_dir: as the user wrote it; made with its parents if it does not exist.
            config_text: the complete configuration.
            is_main: False on all processes but one; they write nothing.

        Raises:
            UserError: the folder cannot be written to, or holds a run, be it one that was
                started a moment ago.
        """
        if not is_main:
            return cls(expand(output_dir), False, [])
        for problem in problems(output_dir):
            raise UserError(problem)
        path = expand(output_dir)
        new_folders = [p for p in (path, *path.parents) if not p.exists()]
        run = cls(path, True, new_folders)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run._write_new(CONFIG, config_text)
            run._created.append(run.logs.create(METRICS))
        except FileExistsError as error:
            run.close()
            raise UserError(
                f"train.output_dir {str(output_dir)!r} was taken by another run that started at "
                f"the same moment ({error.filename} appeared); {_WAY_OUT}."
            ) from error
        except OSError as error:
            run.abandon()
            raise UserError(
                f"train.output_dir {str(output_dir)!r} cannot be used: {_reason(error)}; "
                "choose another train.output_dir."
            ) from error
        return run

    @classmethod
    def reopen(cls, path: Path, *, is_main: bool = True) -> RunDir:
        """Take the folder of a run that is to be continued. Nothing in it is changed yet.

        Args:
            path: absolute; holds a run.

        Raises:
            UserError: the run is still going on, or its folder cannot be written to.
        """
        run = cls(path, is_main, [])
        run._is_kept = True
        if not is_main:
            return run
        if problem := unwritable(path):
            raise UserError(f"the run cannot be continued: {path} {problem}.")
        try:
            run.logs.reopen(METRICS)
        except OSError as error:
            raise UserError(f"the run in {path} cannot be continued: {_reason(error)}.") from error
        return run

    def write_config(self, text: str) -> None:
        """Put a configuration in the place of the run's. On the main process only."""
        if self._is_main:
            atomic.write_text(self.path / CONFIG, _ended(text), durable=True)

    def write_provenance(self, **content: Any) -> None:
        """Write `provenance.json`; see `launcher.provenance.provenance`. That of a run that is
        continued is kept, under the name `provenance-N.json`."""
        if not self._is_main:
            return
        path = self.path / PROVENANCE
        if path.exists():
            number = 1
            while (kept := path.with_name(f"{path.stem}-{number}.json")).exists():
                number += 1
            os.rename(path, kept)
        self.write_json(PROVENANCE, provenance(**content))

    def write_metrics(
        self,
        *,
        step: int,
        loss: float,
        lr: float,
        grad_norm: float,
        step_seconds: float,
        stall_share: float,
        samples_per_second: float,
        skipped: bool,
        memory_bytes: int,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a step to `metrics.jsonl`: one JSON object on one line.

        What is not finite is null there; `skipped` tells a loss that overflowed.

        Args:
            step: number of the step just done, from 1.
            loss, lr, grad_norm, skipped: what the step reported, and the rate it used.
            step_seconds: wall time of the step.
            stall_share: how much of it was spent waiting for the batch.
            samples_per_second: over all processes.
            memory_bytes: in use, see `launcher.training.device.memory_in_use`.
            metrics: further figures, by name.

        Raises:
            ValueError: a further figure is named like one of the above.
            TypeError: a further figure is not a number.
        """
        record: dict[str, Any] = {
            "step": step,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "step_seconds": step_seconds,
            "stall_share": stall_share,
            "samples_per_second": samples_per_second,
            "skipped": skipped,
            "memory_bytes": memory_bytes,
        }
        for name, value in (metrics or {}).items():
            if name in record:
                raise ValueError(
                    f"metric {name!r} of StepOutput.metrics has the name of a figure that every "
                    f"step has ({', '.join(record)}); give it another name"
                )
            record[name] = value
        for name, value in record.items():
            _require_number(name, value)
        self.append(METRICS, record)

    def write_figures(self, step: int, figures: Mapping[str, Any]) -> None:
        """Append what a validation has found to `validation/figures.jsonl`, as `write_metrics`.

        Args:
            step: steps that are done.
            figures: numbers by name.

        Raises:
            ValueError: one is named `step`.
            TypeError: one is not a number.
        """
        if "step" in figures:
            raise ValueError(
                "a figure of Validation.figures is named 'step', which every line has; give it "
                "another name"
            )
        for name, value in figures.items():
            _require_number(name, value)
        self.append(FIGURES, {"step": step, **figures})

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line to a log; see `Logs.append`. From then on the folder is not abandoned.

        Args:
            name: relative to the folder, such as `validation/figures.jsonl`.

        Raises:
            FolderGoneError: somebody has removed or moved the run's folder.
        """
        if self._is_main and not self.logs.are_in_place():
            raise FolderGoneError
        self.logs.append(name, record)
        self._is_kept = True

    def write_json(self, name: str, content: Any, *, replace: bool = False) -> None:
        """Write a JSON file, such as a report, whole or not at all. On the main process only.

        Args:
            replace: there may be one, of an earlier part of the run.

        Raises:
            FileExistsError: there is a file of that name already, and it is not to be replaced.
        """
        if not self._is_main:
            return
        path = self.path / name
        is_new = not path.exists()
        if not (is_new or replace):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        text = json.dumps(content, indent=2, allow_nan=False)
        atomic.write_text(path, _ended(text), durable=True)
        if is_new:
            self._created.append(path)

    def make_anew(self, config_text: str) -> None:
        """After a FolderGoneError: make the folder again, for what can still be saved.

        Raises:
            OSError: it cannot be made.
        """
        self.close()
        self.path.mkdir(parents=True, exist_ok=True)
        self.logs = Logs(self.path, self._is_main)
        self.write_config(config_text)
        self.logs.reopen(METRICS)

    def require_space(self, size: int, what: str) -> None:
        """Raise UserError if the disk has not the room for what the run will write at its end.

        Args:
            size: in bytes.
            what: what it is, in the plural.
        """
        free = shutil.disk_usage(self.path).free
        if self._is_main and free < size:
            raise UserError(
                f"train.output_dir {str(self.path)!r} is on a disk with {free / 1e6:,.1f} MB left, "
                f"and {what} take {size / 1e6:,.1f} MB. Free some space, or choose another "
                "train.output_dir."
            )

    def let_write(self, name: str) -> None:
        """Somebody else will write a file or folder of that name, which is not there yet: it goes
        when the run is abandoned."""
        path = self.path / name
        if not path.exists():
            self._disposable.append(path)

    def close(self) -> None:
        """No more lines will be written. May be called twice."""
        self.logs.close()

    def abandon(self) -> None:
        """Remove the files that this object wrote, those it let others write, and the folders it
        made if they are empty.

        Files that others put into the folder stay. Does nothing once something is recorded, or if
        the run was there before.
        """
        self.close()
        if self._is_kept or not self._is_main:
            return
        for path in self._disposable:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)  # its writer may still be at it
            else:
                path.unlink(missing_ok=True)
        for path in reversed([p for p in self._created if not p.is_dir()]):
            path.unlink(missing_ok=True)
        for path in [p for p in self._created if p.is_dir()]:  # innermost first
            try:
                path.rmdir()
            except OSError:  # not empty, so not ours alone
                break
        self._created.clear()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
            return
        self.abandon()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            way_out = (
                f"Free some space on its disk, then go on: `{resume_command(self.path)}`."
                if self._is_kept
                else "Free some space on its disk, or choose another train.output_dir."
            )
            raise UserError(
                f"the run in {self.path} could not write {error.filename or 'its files'}: "
                f"{os.strerror(error.errno)}. {way_out}"
            ) from error

    def _write_new(self, name: str, text: str) -> None:
        """Write a file that must not exist yet (O_EXCL: the system decides who was first)."""
        path = self.path / name
        with open(path, "x", encoding="utf-8") as file:
            self._created.append(path)
            file.write(_ended(text))
            file.flush()
            os.fsync(file.fileno())


def _ended(text: str) -> str:
    return text.rstrip("\n") + "\n"


def has_weights(path: Path) -> bool:
    """Whether a folder holds exported weights. Those of a checkpoint that was never finished, in a
    hidden folder, are none."""
    found = (p.relative_to(path) for pattern in _MARKS_OF_WEIGHTS for p in path.glob(pattern))
    return any(not name.parts[0].startswith(".") for name in found)


def expand(output_dir: str | Path) -> Path:
    """The absolute path; `~` in a YAML file is expanded by nobody else."""
    if not str(output_dir).strip() or "\0" in str(output_dir):
        raise ValueError("it is not the name of a folder")
    try:
        expanded = Path(output_dir).expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(str(error)) from error
    return Path(os.path.abspath(expanded))


def _occupied(path: Path) -> str | None:
    """What the folder holds that a run would write over."""
    if not path.is_dir():
        return None
    if is_open(path / METRICS):
        return (
            "holds a run that is still going on; choose another train.output_dir, or wait for its "
            "end (SIGTERM lets it save and end)"
        )
    for patterns, what in ((_MARKS_OF_A_RUN, "a run"), (_MARKS_OF_WEIGHTS, "model weights")):
        found = sorted(f"{p.relative_to(path)}" for pattern in patterns for p in path.glob(pattern))
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            return f"already holds {what} ({', '.join(found[:3])}{more}); {_WAY_OUT}"
    # Weights go into folders whose names are the recipe's; a log file is in nobody's way.
    folders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders:
        return (
            f"has folders in it ({', '.join(folders[:3])}), among which a run would write its own; "
            "choose another train.output_dir, or move them away"
        )
    return None


def unwritable(path: Path, option: str = "train.output_dir") -> str | None:
    """Why no file could be made in a folder, judging by the part of the path that exists.

    Args:
        option: what else to choose.
    """
    way_out = f"choose another {option}"
    for part in (path, *path.parents):
        try:
            is_there = part.exists()
        except OSError as error:
            return f"cannot be used: {error.strerror}; {way_out}"
        if not is_there:
            if part.is_symlink():
                return f"cannot be used: {part} is a link to nowhere; {way_out}"
            continue
        if not part.is_dir():
            what = "is a file" if part == path else f"lies under {part}, which is a file"
            return f"{what}, not a folder; {way_out}"
        if not os.access(part, os.W_OK | os.X_OK):
            what = "is not writable" if part == path else f"cannot be made: {part} is not writable"
            return f"{what} for this user; {way_out}"
        return None
    return None


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno)
        return f"{text} ({error.filename})" if error.errno != errno.ENAMETOOLONG else text
    return str(error)


def _require_number(name: str, value: Any) -> None:
    if getattr(value, "ndim", None) == 0:  # numpy scalars
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"metric {name!r} must be a number, got {value!r}")
