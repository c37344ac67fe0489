"""Which charts a report has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from launcher.report import formats
from launcher.report.chart import Chart, Line
from launcher.report.figures import VALIDATION, control_gap
from launcher.report.lines import Lines
from launcher.report.run import Run

#: Figures of a step that have a chart: title, unit, further arguments of Chart, whether smoothed.
_OF_STEPS: tuple[tuple[str, str, str, dict[str, Any], bool], ...] = (
    ("loss", "Loss", formats.NUMBER, {"wide": True}, True),
    ("lr", "Learning rate", formats.NUMBER, {"from_zero": True, "may_be_log": False}, False),
    ("grad_norm", "Gradient norm, before clipping", formats.NUMBER, {"from_zero": True}, True),
    ("step_seconds", "Time of a step", formats.SECONDS, {"from_zero": True}, True),
    (
        "stall_share",
        "Waited for data, of a step's time",
        formats.SHARE,
        {"from_zero": True, "may_be_log": False},
        True,
    ),
    (
        "memory_bytes",
        "Memory in use",
        formats.BYTES,
        {"from_zero": True, "may_be_log": False},
        False,
    ),
    ("loss_scale", "Loss scale", formats.NUMBER, {}, False),
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
    lines = [
        Line(
            label if len(runs) == 1 else f"{run.label}, {label}",
            *run.validations.get(name),
            colour=stroke if len(runs) == 1 else number,
            stroke=0 if len(runs) == 1 else stroke,
            dots=True,
        )
        for number, run in enumerate(runs)
        for stroke, (name, label) in enumerate(VALIDATION.items())
        if name == "loss" or name in run.validations.columns
    ]
    has_control = any("loss_without_control" in run.validations.columns for run in runs)
    if not has_control:
        lines = [
            Line(run.label, *run.validations.get("loss"), colour=number, dots=True)
            for number, run in enumerate(runs)
        ]
    yield Chart(
        "Loss of held-out samples",
        lines,
        note="with, without and with a wrong control image" if has_control else "",
        wide=True,
    )
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


def of_steps(runs: list[Run]) -> Iterator[Chart]:
    """A chart for each figure of a step."""
    for name, title, unit, more, smooth in _OF_STEPS:
        yield Chart(title, _each(runs, name, smooth=smooth), unit, **more)
    known = (*(entry[0] for entry in _OF_STEPS), *_NOT_DRAWN)
    for name in _names([run.steps for run in runs]):
        if name not in known:
            yield Chart(name, _each(runs, name, smooth=True))


def _names(logs: list[Lines]) -> list[str]:
    return list(dict.fromkeys(name for log in logs for name in log.columns))


def _each(
    runs: list[Run], name: str, *, smooth: bool = False, of_validations: bool = False
) -> list[Line]:
    lines = []
    for number, run in enumerate(runs):
        x, y = (run.validations if of_validations else run.steps).get(name)
        x, y = _of_tries(x, y)
        lines.append(Line(run.label, x, y, colour=number, smooth=smooth, dots=of_validations))
    return lines


def _of_tries(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the values that are not finite of a step that was tried again and then had one."""
    if not len(x):
        return x, y
    is_followed = np.r_[x[:-1] == x[1:], False]
    kept = np.isfinite(y) | ~is_followed
    return x[kept], y[kept]
