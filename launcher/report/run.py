"""What a run has left in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.logs import FIGURES, METRICS, RESUMES, is_open
from launcher.report.files import read_config, read_json
from launcher.report.lines import Lines, read_lines, read_records
from launcher.report.shape import ANYTHING, NUMBER, TEXT, TEXT_OR_NULL, misfit
from launcher.rundir import CONFIG, PROVENANCE
from launcher.start import EXPORTED
from launcher.training.errors import UserError

_SIZES = {str: {"parameters": NUMBER, "bytes": NUMBER}}
_PRECISION = {
    "parts": {
        str: {
            "stored": _SIZES,
            "trained": _SIZES,
            "asked": (dict, type(None)),
            "emulated": (bool,),
            "observed": {str: {str: NUMBER}},
        }
    },
    "notes": [TEXT],
}
_PROVENANCE = {
    "command_line": [TEXT],
    "python": {},
    "platform": {},
    "plugins": [{"name": TEXT_OR_NULL, "file": TEXT_OR_NULL, "sha256": TEXT_OR_NULL}],
    "packages": {str: TEXT},
}
_EXPORTED = {"step": NUMBER, "files": [TEXT]}
_RESUME = {"step": NUMBER, "checkpoint": TEXT_OR_NULL, "changed": {str: [ANYTHING]}}


@dataclass(frozen=True)
class Run:
    """A run, finished or going on.

    Attributes:
        path: its folder, absolute.
        label: what it is called on the page.
        steps: from metrics.jsonl.
        validations: from validation/figures.jsonl.
        config: the content of config.yaml; empty if there is none.
        precision: the content of precision.json; None if there is none.
        provenance: the content of provenance-1.json, ..., provenance.json, oldest first.
        resumes: lines of resumes.jsonl.
        exported: the content of exported.json; None: the run has not come to its end.
        written: when metrics.jsonl was last added to, in seconds since 1970.
        is_going_on: a process has metrics.jsonl open. None: that cannot be found out.
        problems: sentences about lines and values of the logs that could not be read.
    """

    path: Path
    label: str
    steps: Lines
    validations: Lines
    config: Mapping[str, Any]
    precision: Mapping[str, Any] | None
    provenance: Sequence[Mapping[str, Any]]
    resumes: Sequence[Mapping[str, Any]]
    exported: Mapping[str, Any] | None
    written: float
    is_going_on: bool | None
    problems: Sequence[str]


def read_run(folder: Path, label: str) -> Run:
    """Read everything but images.

    Raises:
        UserError: there is no run, or a file of it is damaged.
    """
    metrics = folder / METRICS
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}. Give the folder of a run, its train.output_dir.")
    if not metrics.is_file():
        hint = ""
        if (folder.parent / METRICS).is_file():
            hint = f" It is in the folder of one: give {folder.parent}."
        raise UserError(
            f"{folder} holds no run: there is no {METRICS} in it.{hint or ' Give the folder of a '}"
            f"{'' if hint else 'run, its train.output_dir.'}"
        )
    steps, of_steps = read_lines(folder, METRICS)
    # Before exported.json is read: a run that ends in between is then finished, and not stopped.
    is_going_on = is_open(metrics)
    validations, of_validations = read_lines(folder, FIGURES)
    resumes, of_resumes = read_records(folder, RESUMES, lambda line: misfit(line, _RESUME) is None)
    return Run(
        path=folder,
        label=label,
        steps=steps,
        validations=validations,
        config=read_config(folder / CONFIG),
        precision=read_json(folder / "precision.json", _PRECISION),
        provenance=[read_json(path, _PROVENANCE) or {} for path in _provenance_files(folder)],
        resumes=resumes,
        exported=read_json(folder / EXPORTED, _EXPORTED),
        written=metrics.stat().st_mtime,
        is_going_on=is_going_on,
        problems=[*of_steps, *of_validations, *of_resumes],
    )


def _provenance_files(folder: Path) -> list[Path]:
    earlier: list[Path] = []
    while (path := folder / f"provenance-{len(earlier) + 1}.json").is_file():
        earlier.append(path)
    last = folder / PROVENANCE
    return [*earlier, last] if last.is_file() else earlier
