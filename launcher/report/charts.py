"""Which charts a report has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from launcher.report import formats
from launcher.report.chart import Chart
from launcher.report.drawing import Line, Mark
from launcher.report.figures import VALIDATION, control_gap
from launcher.report.lines import Lines
from launcher.report.run import Run

_NOISY: dict[str, Any] = {"smooth": True, "from_zero": True}
_FLAT: dict[str, Any] = {"from_zero": True, "may_be_log": False}
#: Figures of a step that have a chart: title, unit, further arguments of Chart.
_OF_STEPS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("loss", "Loss", formats.NUMBER, {"smooth": True, "wide": True}),
    ("lr", "Learning rate", formats.NUMBER, _FLAT),
    ("grad_norm", "Gradient norm, before clipping", formats.NUMBER, _NOISY),
    ("step_seconds", "Time of a step", formats.SECONDS, _NOISY),
    ("stall_share", "Waited for data, of a step's time", formats.SHARE, {**_FLAT, "smooth": True}),
    ("memory_bytes", "Memory in use", formats.BYTES, _FLAT),
    ("loss_scale", "Loss scale", formats.NUMBER, {}),
)
#: Figures of a step without a chart: samples_per_second is step_seconds again; skipped updates
#: are counted.
_NOT_DRAWN = ("step", "samples_per_second", "skipped")
#: Figures of a validation that share a chart, or say nothing over steps.
_OF_GAP = (*VALIDATION, "residual_norm")
_NOT_OF_VALIDATION = ("step", "samples", "seconds")


def of_validations(runs: list[Run]) -> Iterator[Chart]:
    """The control gap: the losses with and without control, the strength of the residuals, and
    whatever else a recipe's validation says."""
    yield from _held_out(runs)
    yield Chart(
        "Control gap",
        [
            Line(run.label, *control_gap(run), colour=number, dots=True)
            for number, run in enumerate(runs)
        ],
        note="loss with another image's control minus loss with its own: above 0, the control is "
        "looked at",
        from_zero=True,
        may_be_log=False,
    )
    yield Chart(
        "Residual norm",
        _each(runs, "residual_norm", of_validations=True),
        note="of the ControlNet's residuals, relative to what they are added to",
        from_zero=True,
    )
    for name in _names([run.validations for run in runs]):
        if name not in (*_OF_GAP, *_NOT_OF_VALIDATION):
            yield Chart(f"Validation: {name}", _each(runs, name, of_validations=True))


def _held_out(runs: list[Run]) -> Iterator[Chart]:
    """The losses of one run in one chart; of several a chart for each kind of loss, since colours
    tell the runs apart."""
    title = "Loss of held-out samples"
    kinds = {
        name: label
        for name, label in VALIDATION.items()
        if any(name in run.validations.columns for run in runs)
    }
    if len(runs) == 1 or len(kinds) == 1:
        lines = [
            Line(
                label if len(kinds) > 1 else run.label,
                *run.validations.get(name),
                colour=number + kind,  # one of them is 0
                dots=True,
            )
            for number, run in enumerate(runs)
            for kind, (name, label) in enumerate(kinds.items())
        ]
        yield Chart(title, lines, wide=True)
        return
    for name, label in kinds.items():
        yield Chart(f"{title}, {label}", _each(runs, name, of_validations=True))


def of_steps(runs: list[Run]) -> Iterator[Chart]:
    """A chart for each figure of a step."""
    for name, title, unit, more in _OF_STEPS:
        yield Chart(title, _each(runs, name), unit, **more)
    known = (*(entry[0] for entry in _OF_STEPS), *_NOT_DRAWN)
    for name in _names([run.steps for run in runs]):
        if name not in known:
            yield Chart(name, _each(runs, name), smooth=True)


def resumes(runs: list[Run]) -> list[Mark]:
    """Where the runs were continued, in rising order."""
    marks = [
        Mark(line["step"], None if len(runs) == 1 else number)
        for number, run in enumerate(runs)
        for line in run.resumes
        if "step" in line
    ]
    return sorted(marks, key=lambda mark: mark.step)


def _names(logs: list[Lines]) -> list[str]:
    return list(dict.fromkeys(name for log in logs for name in log.columns))


def _each(runs: list[Run], name: str, *, of_validations: bool = False) -> list[Line]:
    lines = []
    for number, run in enumerate(runs):
        x, y = (run.validations if of_validations else run.steps).get(name)
        x, y = _of_tries(x, y)
        lines.append(Line(run.label, x, y, colour=number, dots=of_validations))
    return lines


def _of_tries(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the values that are not finite of a step that was tried again and then had one."""
    if not len(x):
        return x, y
    is_followed = np.r_[x[:-1] == x[1:], False]
    kept = np.isfinite(y) | ~is_followed
    return x[kept], y[kept]
