"""A run in a dozen figures, and in what two runs were not configured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from launcher.report import formats
from launcher.report.run import Run
from launcher.resume import flat

#: The final loss is the mean of so many steps at most: that of a single one says little.
_LAST = 100

#: Figures of a validation, in the order in which they are shown, and what they are called.
VALIDATION = {
    "loss": "with its control",
    "loss_without_control": "without a control",
    "loss_shuffled_control": "with another image's control",
}


def summary(run: Run, now: float) -> dict[str, str]:
    """What the run has come to, as text by name. What is not known is left out. The time of a step
    and the samples per second are medians.

    Args:
        now: seconds since 1970.
    """
    steps = run.steps
    done = int(steps.step[-1]) if len(steps) else 0
    planned = run.config.get("train", {}).get("max_train_steps")
    if not isinstance(planned, int) or not abs(planned) < 1e15:
        planned = None
    found = {"steps": f"{done:,}" if planned is None else f"{done:,} of {planned:,}"}
    found["state"] = _state(run, now)
    times = steps.finite("step_seconds")
    if run.exported is None and len(times) and planned is not None and planned > done:
        left = (planned - done) * float(np.median(times))
        found["left, steps alone"] = f"about {formats.seconds(left)}"
    loss = steps.finite("loss")
    if len(loss):
        last = loss[-_LAST:]
        mean_of = f"mean of {len(last)} steps" if len(last) > 1 else "1 step"
        found["final loss"] = f"{formats.number(float(last.mean()))} ({mean_of})"
    found |= _of_validations(run)
    if len(times):
        found["time of a step"] = formats.seconds(float(np.median(times)))
        found["time of all steps"] = formats.seconds(float(times.sum()))
    rate = steps.finite("samples_per_second")
    if len(rate):
        found["samples per second"] = formats.number(float(np.median(rate)), 3)
    waited = steps.finite("stall_share")
    if len(times) and len(times) == len(waited) and times.sum():
        found["waited for data"] = formats.share(float((times * waited).sum() / times.sum()))
    memory = steps.finite("memory_bytes")
    if len(memory):
        found["memory, most"] = formats.size(float(memory.max()))
    skipped = int(steps.finite("skipped").sum())
    if skipped:
        found["updates skipped"] = f"{skipped:,}"
    return found


def _state(run: Run, now: float) -> str:
    if run.exported is not None:
        return "finished"
    state = {True: "going on", False: "stopped", None: "not finished"}[run.is_going_on]
    if not len(run.steps):
        return state
    ago = formats.seconds(max(1, round(now - run.written)))
    return f"{state}, last step {ago} before this page"


def _of_validations(run: Run) -> dict[str, str]:
    found = {}
    held_out = run.validations.finite("loss")
    if len(held_out):
        found["validation loss"] = formats.number(float(held_out[-1]))
    gap = control_gap(run)[1]
    if len(gap):
        found["control gap"] = formats.number(float(gap[-1]))
    norm = run.validations.finite("residual_norm")
    if len(norm):
        found["residual norm"] = formats.number(float(norm[-1]))
    return found


def control_gap(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and by how much the loss is larger with another image's control than with its own.

    Not "without control": a ControlNet that looks at no control at all, and has learned what the
    pictures are like, is better than none.
    """
    lines = run.validations
    if not {"loss", "loss_shuffled_control"} <= lines.columns.keys():
        return np.empty(0), np.empty(0)
    gap = lines.columns["loss_shuffled_control"] - lines.columns["loss"]
    known = np.isfinite(gap)
    return lines.step[known], gap[known]


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Options that are not the same in all runs, each with its value in every run. An option that
    a run does not have is `MISSING` there."""
    options = [flat(config) for config in configs]
    names = dict.fromkeys(name for one in options for name in one)
    found = {name: [one.get(name, MISSING) for one in options] for name in names}
    return {n: values for n, values in found.items() if any(v != values[0] for v in values)}


class _Missing:
    """In place of a value that a configuration does not have."""


MISSING = _Missing()


def written(value: Any) -> str:
    """An option's value as YAML has it."""
    if value is MISSING:
        return "(no such option)"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        text = yaml.safe_dump(
            value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
        )
        return str(text).rstrip("\n")
    return str(value) if value != "" else "''"
