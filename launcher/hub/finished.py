"""What a finished run has left, as far as its model card and the upload need it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.logs import FIGURES, METRICS, RESUMES, is_open
from launcher.rundir import CONFIG, PROVENANCE, expand, resume_command
from launcher.start import EXPORTED
from launcher.training import checkpoint, digests, safetensors_files
from launcher.training.errors import UserError

GRID = "validation/grid.png"
PRECISION = "precision.json"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has exported its weights.

    Attributes:
        path: its folder.
        step: the steps that it has done.
        exported: the files with the weights, relative to the folder.
        digests: the SHA-256 that they had when they were exported, in hexadecimal digits, by name;
            empty: it was not noted.
        provenance: what it ran with.
        precision: the report on it, see `launcher.training.precision.report`; empty: there is none.
        resumes: a line each time that it was continued.
        last_step: the last line of its metrics; empty: it has none.
        figures: its last validation; empty: it has none.
    """

    path: Path
    step: int
    exported: tuple[str, ...]
    digests: Mapping[str, str]
    provenance: Mapping[str, Any]
    precision: Mapping[str, Any]
    resumes: Sequence[Mapping[str, Any]]
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
        raise UserError(f"the run in {path} is not finished: {_what_now(path)}")
    exported = _json(path / EXPORTED)
    files: Any = exported.get("files")
    step, known = exported.get("step"), exported.get("sha256", {})
    if not (_is_names(files) and isinstance(step, int) and isinstance(known, dict)):
        raise UserError(
            f"{path / EXPORTED} does not say which files were exported after which step. Restore "
            "it from a copy."
        )
    missing = [name for name in files if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"the run in {path} has exported {', '.join(missing)}, and the folder does not have "
            f"{'it' if len(missing) == 1 else 'them'} any more. {_way_out(path, step)}"
        )
    return FinishedRun(
        path=path,
        step=step,
        exported=tuple(files),
        digests=known,
        provenance=_json(path / PROVENANCE) if (path / PROVENANCE).is_file() else {},
        precision=_json(path / PRECISION) if (path / PRECISION).is_file() else {},
        resumes=list(_records(path / RESUMES)),
        last_step=_last(path / METRICS),
        figures=_last(path / FIGURES),
    )


def verify(run: FinishedRun) -> None:
    """See to it that the weights are what was exported. Reads every byte of those files whose
    digests are known, and the headers of the others.

    Raises:
        UserError: a file is damaged, or another one.
    """
    for name in run.exported:
        file = run.path / name
        try:
            if name in run.digests and digests.of_file(file).hex() != run.digests[name]:
                raise UserError(f"{file} does not hold what was exported: its checksum differs.")
            if file.suffix == ".safetensors":
                safetensors_files.read_header(file)
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}.") from error
        except UserError as error:
            raise UserError(f"{error} {_way_out(run.path, run.step)}") from error


def _what_now(path: Path) -> str:
    if is_open(path / METRICS):
        return "it is still going on. Wait for its end."
    return (
        f"it has no {EXPORTED}, which is written when the weights are exported. "
        f"`{resume_command(path)}` goes on with it."
    )


def _way_out(path: Path, step: int) -> str:
    """What helps where an exported file is not as it was."""
    try:
        checkpoint.read(checkpoint.path_of(path, step))
    except UserError:  # without it, the run would begin anew, and all of it be lost
        return "Restore it from a copy."
    return (
        f"Restore it from a copy; or remove {EXPORTED}, upon which `{resume_command(path)}` "
        f"exports again from {checkpoint.path_of(path, step).name}."
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


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
    last = b""
    for line in _lines(log):
        last = line
    return _record(log, last) if last else {}


def _records(log: Path) -> Iterator[dict[str, Any]]:
    for line in _lines(log):
        yield _record(log, line)


def _lines(log: Path) -> Iterator[bytes]:
    """The whole lines of a log, which may not exist."""
    if log.is_file():
        with open(log, "rb") as file:
            yield from (line for line in file if line.strip() and line.endswith(b"\n"))


def _record(log: Path, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        what = str(error)
    else:
        if isinstance(content, dict):
            return content
        what = "it is no JSON object"
    raise UserError(
        f"a line of {log} is damaged: {what}. Restore the file from a copy, or remove the line."
    )
