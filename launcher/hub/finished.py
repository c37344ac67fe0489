"""What a finished run has left, as far as its model card and the upload need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.logs import FIGURES, METRICS
from launcher.rundir import CONFIG, PROVENANCE, expand
from launcher.start import EXPORTED
from launcher.training import checkpoint
from launcher.training.errors import UserError

GRID = "validation/grid.png"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has exported its weights.

    Attributes:
        path: its folder.
        step: the steps that it has done.
        exported: the files with the weights, relative to the folder.
        provenance: what it ran with.
        last_step: the last line of its metrics; empty: it has none.
        figures: its last validation; empty: it has none.
    """

    path: Path
    step: int
    exported: tuple[str, ...]
    provenance: Mapping[str, Any]
    last_step: Mapping[str, Any]
    figures: Mapping[str, Any]

    @property
    def grid(self) -> str | None:
        """The image of all validations, relative to the folder."""
        return GRID if (self.path / GRID).is_file() else None


def find(run: str) -> Path:
    """The folder that the user means.

    Raises:
        UserError: it holds no run.
    """
    try:
        path = expand(run)
    except ValueError as error:
        raise UserError(f"{run!r}: {error}. Give the folder of a run, as in runs/first.") from error
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{run} {what}; give the folder of a run, as in runs/first.")
    if checkpoint.is_checkpoint(path):
        raise UserError(
            f"{run} is a checkpoint. What is shared is the weights that its run exports at its "
            f"end: give the run's folder, {path.parent}."
        )
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{run} holds no run: it has no {CONFIG}. Give the folder that a run wrote to "
            "(train.output_dir)."
        )
    return path


def read(path: Path) -> FinishedRun:
    """Read what a run has left.

    Args:
        path: from `find`.

    Raises:
        UserError: it has not come to its end, or a file of it is missing or damaged.
    """
    if not (path / EXPORTED).is_file():
        raise UserError(
            f"the run in {path} is not finished: it has no {EXPORTED}, which is written when the "
            f"weights are exported. `launcher --resume {path}` goes on with it."
        )
    exported = _json(path / EXPORTED)
    files, step = exported.get("files"), exported.get("step")
    if not isinstance(files, list) or not isinstance(step, int) or not files:
        raise UserError(
            f"{path / EXPORTED} does not say which files were exported. {_way_out(path)}"
        )
    missing = [name for name in files if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"the run in {path} has exported {', '.join(missing)}, and the folder does not have "
            f"{'it' if len(missing) == 1 else 'them'} any more. {_way_out(path)}"
        )
    return FinishedRun(
        path=path,
        step=step,
        exported=tuple(files),
        provenance=_json(path / PROVENANCE) if (path / PROVENANCE).is_file() else {},
        last_step=_last(path / METRICS),
        figures=_last(path / FIGURES),
    )


def _way_out(path: Path) -> str:
    return (
        f"Restore it from a copy; or remove {EXPORTED}, upon which `launcher --resume {path}` "
        "exports again from the newest checkpoint."
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. Restore it from a copy.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object. Restore it from a copy.")
    return content


def _last(log: Path) -> dict[str, Any]:
    """The last whole line of a log; empty if there is none."""
    if not log.is_file():
        return {}
    last = b""
    with open(log, "rb") as file:
        for line in file:
            if line.strip() and line.endswith(b"\n"):
                last = line
    if not last:
        return {}
    try:
        return dict(json.loads(last))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the last line of {log} is damaged: {error}. Restore the file from a copy, or remove "
            "the line."
        ) from error
