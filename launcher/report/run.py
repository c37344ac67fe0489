"""What a run has left in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from launcher.logs import FIGURES, METRICS, RESUMES
from launcher.rundir import CONFIG, PROVENANCE
from launcher.start import EXPORTED
from launcher.training import checkpoint
from launcher.training.errors import UserError


@dataclass(frozen=True)
class Lines:
    """The figures of a log, by column.

    Attributes:
        step: (N,) float64, rising. A step that was tried again occurs more than once.
        columns: (N,) float64 by name. NaN: null, or not in that line.
        present: (N,) bool by name: that the line has the figure, be it null.
    """

    step: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    present: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.step)

    def get(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of the lines that have a figure; both may be empty."""
        if name not in self.columns:
            return np.empty(0), np.empty(0)
        there = self.present[name]
        return self.step[there], self.columns[name][there]

    def finite(self, name: str) -> np.ndarray:
        """Its values that are numbers."""
        values = self.get(name)[1]
        return values[np.isfinite(values)]


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
    return Run(
        path=folder,
        label=label,
        steps=_lines(metrics),
        validations=_lines(folder / FIGURES),
        config=_config(folder / CONFIG),
        precision=_json(folder / "precision.json"),
        provenance=[_json(path) or {} for path in _provenance_files(folder)],
        resumes=_records(folder / RESUMES),
        exported=_json(folder / EXPORTED),
        written=metrics.stat().st_mtime,
    )


def checkpoints(folder: Path) -> list[tuple[Path, int]]:
    """The checkpoints of a run in the order of their steps, each with its size in bytes."""
    found = []
    for step in checkpoint.steps_in(folder):
        path = checkpoint.path_of(folder, step)
        found.append((path, sum(f.stat().st_size for f in path.rglob("*") if f.is_file())))
    return found


def _provenance_files(folder: Path) -> list[Path]:
    earlier: list[Path] = []
    while (path := folder / f"provenance-{len(earlier) + 1}.json").is_file():
        earlier.append(path)
    last = folder / PROVENANCE
    return [*earlier, last] if last.is_file() else earlier


def _json(path: Path) -> dict[str, Any] | None:
    """A file's object; None if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no JSON object")
    return content


def _config(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no configuration")
    return content


def _records(path: Path) -> list[dict[str, Any]]:
    """The lines of a log. The last one is left out if it is being written: it has no end yet."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _damaged(path, str(error)) from error
    lines = content.split(b"\n")
    unfinished = lines.pop()
    if unfinished:
        try:
            json.loads(unfinished)
            lines.append(unfinished)
        except ValueError:
            pass  # the run is writing it, or was killed while it did
    try:
        # All at once, which takes half the time of one by one.
        records = json.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines) and all(isinstance(record, dict) for record in records):
            return list(records)
    except ValueError:
        pass  # found and named below
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise _damaged(path, f"line {number} is no JSON: {error}") from error
        if not isinstance(records[-1], dict):
            raise _damaged(path, f"line {number} is no JSON object")
    return records


def _lines(path: Path) -> Lines:
    records = _records(path)
    for number, record in enumerate(records, 1):
        step = record.get("step")
        if not isinstance(step, (int, float)) or not abs(step) < 1e15:
            raise _damaged(path, f"line {number} has no number of a step")
    order = sorted(range(len(records)), key=lambda i: records[i]["step"])
    records = [records[i] for i in order]
    columns, present = {}, {}
    for name in dict.fromkeys(name for record in records for name in record):
        there = [name in record for record in records]
        values = [record.get(name) for record in records]
        if all(value is None or isinstance(value, (int, float)) for value in values):
            columns[name] = np.array(values, np.float64)
            present[name] = np.array(there)
    steps = np.array([record["step"] for record in records], np.float64)
    return Lines(steps, columns, present)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} cannot be read: {reason}. Restore it from a copy, or leave this run out."
    )
