"""The lines of a run's logs. One that cannot be read is left out, and said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from launcher.report.files import damaged


@dataclass(frozen=True)
class Lines:
    """The figures of a log, by column.

    Attributes:
        step: (N,) float64, rising. A step that was tried again occurs more than once.
        columns: (N,) float64 by name. NaN: null, no number, or not in that line.
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


def read_lines(folder: Path, name: str) -> tuple[Lines, list[str]]:
    """The figures of a log.

    Args:
        folder: of the run.
        name: of the log in it. There may be none.

    Returns:
        The figures, and sentences about what could not be read.

    Raises:
        UserError: the whole file cannot be read.
    """
    records, problems = read_records(folder, name, _has_step)
    records.sort(key=lambda record: record["step"])
    columns, present = {}, {}
    for figure in dict.fromkeys(figure for record in records for figure in record):
        there = [figure in record for record in records]
        values, wrong = _numbers([record.get(figure) for record in records])
        if wrong:
            problems.append(
                f"{name}: {_counted(wrong, 'value')} of {figure} {_are(wrong)} no "
                f"{'number and counts' if wrong == 1 else 'numbers and count'} as missing."
            )
        if wrong < sum(there):  # or it is no figure at all
            columns[figure], present[figure] = values, np.array(there)
    steps = np.array([record["step"] for record in records], np.float64)
    return Lines(steps, columns, present), problems


def read_records(
    folder: Path, name: str, is_right: Callable[[dict[str, Any]], bool]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a log. The last one is left out if it is being written: it has no end yet.

    Args:
        folder, name: as for `read_lines`.
        is_right: whether a line's object is what it should be; the others are left out.

    Returns:
        The lines' objects, and sentences about what could not be read.

    Raises:
        UserError: the whole file cannot be read.
    """
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise damaged(folder / name, str(error)) from error
    *lines, unfinished = content.split(b"\n")
    if isinstance(_parsed(unfinished), dict):
        lines.append(unfinished)  # else the run is writing it, or was killed while it did
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    # All at once, which takes half the time of one by one.
    records = _parsed(b"[" + b",".join(line for _, line in numbered) + b"]")
    if not isinstance(records, list) or len(records) != len(numbered):
        records = [_parsed(line) for _, line in numbered]
    right = [isinstance(record, dict) and is_right(record) for record in records]
    wrong = [number for (number, _), is_one in zip(numbered, right) if not is_one]
    problems = []
    if len(wrong) == 1:
        problems.append(f"{name}: line {wrong[0]} cannot be read and is left out.")
    elif wrong:
        problems.append(
            f"{name}: {_counted(len(wrong), 'line')} cannot be read and are left out, the first is "
            f"line {wrong[0]}."
        )
    return [record for record, is_one in zip(records, right) if is_one], problems


def _has_step(record: dict[str, Any]) -> bool:
    step = record.get("step")
    return isinstance(step, (int, float)) and not isinstance(step, bool) and abs(step) < 1e15


def _numbers(values: list[Any]) -> tuple[np.ndarray, int]:
    """(N,) float64, and how many are no number, such as a text or what float64 cannot hold."""
    if set(map(type, values)) <= {float, int, bool, type(None)}:
        try:
            return np.array(values, np.float64), 0
        except OverflowError:
            pass  # an integer that float64 cannot hold; counted below
    numbers = [_number(value) for value in values]
    wrong = numbers.count(None)
    return np.array(numbers, np.float64), wrong


def _number(value: Any) -> float | None:
    """None: it is no number."""
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _parsed(text: bytes) -> Any:
    """A JSON text's content; None if it is none, which no line is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
