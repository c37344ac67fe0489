"""Learning-rate schedules: those of diffusers, by name, as pure functions of the step.

The formulas are those of `diffusers.optimization.get_scheduler` (0.35) and agree with it at
every step, past the end of the run included; tests/data/make_schedules.py saves its values.

A step here is an optimisation step. diffusers' scripts multiply warm-up and length by the
number of processes, because accelerate advances the schedule once per process at each
optimisation step; both factors cancel, so the same options give the same rates here, on any
number of processes.

One difference: accelerate does not advance the schedule on a step that was skipped because a
gradient was not finite. Here the rate depends on the step's number and on nothing else.
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "piecewise_constant",
]

#: Where `polynomial` ends. diffusers has no option for it.
POLYNOMIAL_END = 1e-7


def learning_rate(
    step: int,
    *,
    schedule: Schedule,
    base: float,
    total_steps: int,
    warmup_steps: int = 0,
    num_cycles: int = 1,
    power: float = 1.0,
    step_rules: str = "",
) -> float:
    """The learning rate of the optimisation step about to run.

    Args:
        step: the step's number, from 0. Any step is allowed, those past `total_steps` too.
        schedule: `constant` ignores the warm-up, as diffusers does; so does
            `piecewise_constant`. With a warm-up, step 0 has the rate 0.
        base: the rate that the schedule scales (`learning_rate` of the diffusers scripts).
        total_steps: length of the run (`max_train_steps`).
        warmup_steps: steps over which the rate rises linearly from 0 (`lr_warmup_steps`).
        num_cycles: how often `cosine_with_restarts` starts over (`lr_num_cycles`); `cosine` is
            always one half-wave.
        power: exponent of `polynomial` (`lr_power`).
        step_rules: for `piecewise_constant`, see `parse_step_rules`.

    Raises:
        ValueError: `schedule` is none of the names.
    """
    if schedule == "constant":
        return base
    if schedule == "piecewise_constant":
        rules, last = parse_step_rules(step_rules)
        return base * next((factor for end, factor in rules if step < end), last)

    if step < warmup_steps:
        return base * (step / warmup_steps)
    if schedule == "constant_with_warmup":
        return base

    if schedule == "polynomial":
        if step > total_steps or total_steps == warmup_steps:
            return base * (POLYNOMIAL_END / base)
        remaining = 1 - (step - warmup_steps) / (total_steps - warmup_steps)
        above_end: float = (base - POLYNOMIAL_END) * remaining**power
        return base * ((above_end + POLYNOMIAL_END) / base)

    decay_steps = max(1, total_steps - warmup_steps)
    if schedule == "linear":
        return base * max(0.0, (total_steps - step) / decay_steps)
    progress = (step - warmup_steps) / decay_steps
    if schedule == "cosine":
        # diffusers does not clamp: past the end the cosine rises again.
        return base * max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))
    if schedule == "cosine_with_restarts":
        if progress >= 1.0:
            return 0.0
        return base * max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0))))
    raise ValueError(f"unknown learning-rate schedule {schedule!r}")


def problems(
    *,
    schedule: Schedule,
    base: float,
    total_steps: int,
    warmup_steps: int = 0,
    step_rules: str = "",
) -> list[str]:
    """What is wrong with a schedule's settings taken together; empty if nothing is.

    The messages are complete sentences without the names of the options, which the caller
    knows. Ranges of single values are the caller's to check.
    """
    found = []
    if schedule == "polynomial" and base <= POLYNOMIAL_END:
        found.append(
            f"the polynomial schedule falls from the learning rate to {POLYNOMIAL_END:g}, so the "
            f"learning rate must be above that; it is {base:g}"
        )
    if schedule not in ("constant", "piecewise_constant") and 0 < total_steps <= warmup_steps:
        found.append(
            f"the warm-up of {warmup_steps} steps does not fit into a run of {total_steps} steps: "
            f"the learning rate would never be reached. Shorten the warm-up or lengthen the run"
        )
    if schedule == "piecewise_constant":
        try:
            parse_step_rules(step_rules)
        except ValueError as error:
            found.append(str(error))
    elif step_rules:
        found.append(
            f"step rules ({step_rules!r}) belong to the schedule piecewise_constant, "
            f"and the schedule is {schedule}"
        )
    return found


def parse_step_rules(step_rules: str) -> tuple[list[tuple[int, float]], float]:
    """Read the rules of `piecewise_constant`, in diffusers' notation.

    `"1:10,0.1:20,0.01"` means: the base rate up to step 10, a tenth of it up to step 20 (both
    counted from the start of the run), a hundredth of it from there on.

    Returns:
        (end, factor) in rising order of end, and the factor after the last end.

    Raises:
        ValueError: the text is not of this form; the message says which part and why.
    """
    form = 'write "FACTOR:UP_TO_STEP,...,FACTOR", for example "1:1000,0.1:2000,0.01"'
    *ranges, last_text = step_rules.split(",")
    rules: dict[int, float] = {}
    for text in ranges:
        factor_text, colon, end_text = text.partition(":")
        factor = _factor(factor_text)
        if not colon or factor is None or not end_text.strip().isdecimal():
            raise ValueError(f"{text.strip()!r} in the step rules {step_rules!r}: {form}")
        if int(end_text) in rules:
            raise ValueError(
                f"the step rules {step_rules!r} name step {int(end_text)} twice: {form}"
            )
        rules[int(end_text)] = factor
    last = _factor(last_text)
    if last is None:
        raise ValueError(
            f"the step rules {step_rules!r} must end with the factor for the rest of the run, "
            f"without a step: {form}"
        )
    return sorted(rules.items()), last


def _factor(text: str) -> float | None:
    """A finite number that is not negative, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
