"""A plan as text for people and as JSON for programs. GB are 10**9 bytes, MB 10**6."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from launcher.memory_plan.accounting import ZERO_STAGES, Part
from launcher.training.sizes import size_text

if TYPE_CHECKING:
    from launcher.memory_plan.plan import Alternative, Plan

WIDTH = 100
_LABEL, _NUMBER = 68, 12
#: What the encodings of so many samples take is said where there is no data set.
SAMPLES = 1000


def text(plan: Plan) -> str:
    """Everything, on one screen and a half."""
    sections = [_head(plan), _precompute(plan), _train(plan), _alternatives(plan), _cache(plan)]
    return "\n\n".join("\n".join(lines) for lines in [*map(list, sections), list(_verdict(plan))])


def _head(plan: Plan) -> Iterator[str]:
    yield (
        f"memory plan of {plan.recipe}, in {_unit(plan)[0]} on one device of "
        f"{size_text(plan.device_memory)}; ~ marks estimates"
    )
    for note in plan.notes:
        yield from _wrapped(f"- {note}", "  ")


def _precompute(plan: Plan) -> Iterator[str]:
    if not plan.precompute:
        yield "precompute: nothing is encoded"
        return
    yield _header(plan, "precompute")
    yield from (_part(plan, part) for part in plan.precompute)
    yield _row(plan, "  activations while encoding, at most", plan.encoding, estimated=True)
    yield _row(plan, "  in all", plan.precompute_total, estimated=True, verdict=True)
    how = {
        "process": "in a process of its own, gone before training",
        "keep": "and kept while training",
        "delete": "deleted before training; what the pool keeps of it is not counted",
        "cast": "cast, then deleted before training; what the pool keeps of it is not counted",
    }
    yield f"  (release_text_encoders={plan.released}: {how.get(plan.released, '')})"


def _train(plan: Plan) -> Iterator[str]:
    memory = plan.memory
    yield _header(plan, "train")
    yield from (_part(plan, part) for part in plan.train)
    yield _row(plan, "  trained parameters once more, in what they compute in", memory.copies)
    yield _row(plan, "  gradients", memory.gradients)
    yield _row(plan, f"  state of the optimizer{_chosen_optimizer(plan)}", memory.optimizer)
    recomputed = ", recomputed" if plan.checkpointing else ""
    yield _row(
        plan,
        f"  activations of a micro-batch (train_batch_size {plan.batch}){recomputed}",
        memory.activations,
        estimated=True,
    )
    if memory.averages:
        yield _row(plan, "  the moving average of what is trained", memory.averages)
    if memory.encoders:
        yield _row(plan, "  the encoders, which are kept", memory.encoders)
    yield _row(plan, "  in all", memory.total, estimated=True, verdict=True)


def _chosen_optimizer(plan: Plan) -> str:
    return next((f", {row.optimizer}" for row in plan.alternatives if row.chosen), "")


def _unit(plan: Plan) -> tuple[str, float]:
    """What sizes are shown in: GB, or MB for toys."""
    return ("MB", 1e6) if plan.peak < 1e8 else ("GB", 1e9)


def _header(plan: Plan, name: str) -> str:
    columns = f"{name:<22}{'parameters':>16}  {'kept in':<12}"
    return f"{columns:<{_LABEL}}{_unit(plan)[0]:>{_NUMBER}}"


def _part(plan: Plan, part: Part) -> str:
    fate = "trained" if part.trained else "frozen"
    label = f"  {part.name:<20}{part.size:>16,}  {part.dtype:<12}{fate}"
    return _row(plan, label, part.bytes)


def _row(
    plan: Plan, label: str, count: float | None, *, estimated: bool = False, verdict: bool = False
) -> str:
    if count is None:
        return f"{label:<{_LABEL}}{'unknown':>{_NUMBER}}"
    number = f"{'~' if estimated else ''}{count / _unit(plan)[1]:.2f}"
    words = {"fits": "   fits", "tight": "   fits, barely", "no": "   DOES NOT FIT"}
    judged = words[plan.verdict(count)] if verdict else ""
    return f"{label:<{_LABEL}}{number:>{_NUMBER}}{judged}"


def _alternatives(plan: Plan) -> Iterator[str]:
    yield (
        f"train stage with other choices, {_unit(plan)[0]} on each of {plan.devices} devices   "
        "* chosen   ! does not fit   ? barely"
    )
    zero = "".join(f"{f'ZeRO {stage}':>10}" for stage in ZERO_STAGES)
    yield f"  {'policy':<10}{'optimizer':<20}{'checkpointing':<15}{zero}"
    for row in plan.alternatives:
        checkpointing = {None: "unknown", True: "yes", False: "no"}[row.checkpointing]
        cells = "".join(_cell(plan, row, stage) for stage in ZERO_STAGES)
        mark = "*" if row.chosen else " "
        yield f"{mark} {row.policies:<10}{row.optimizer:<20}{checkpointing:<15}{cells}".rstrip()
    yield from _wrapped(
        "The columns ZeRO 1 to 3 are arithmetic, optimizer state, gradients and parameters divided "
        f"by {plan.devices}: this launcher has no ZeRO, its runs are column 0."
    )


def _cell(plan: Plan, row: Alternative, stage: int) -> str:
    total = row.memory[stage].total
    mark = {"no": "!", "tight": "?", "fits": " "}[plan.verdict(total)]
    return f"{total / _unit(plan)[1]:>9.1f}{mark}"


def _cache(plan: Plan) -> Iterator[str]:
    if not plan.encodings:
        yield "cache: unknown" if plan.precompute else "cache: none"
        return
    if plan.samples is None:
        yield f"cache for every {SAMPLES:,} samples, at most"
    else:
        yield f"cache for the data set's {plan.samples:,} samples, at most"
    total = 0
    for kind in plan.encodings:
        count = kind.per_sample * SAMPLES if kind.count is None else kind.count
        total += count * kind.bytes
        noun = kind.kind if count == 1 else f"{kind.kind}s"
        label = f"  {count:,} {noun} of {size_text(kind.bytes)}"
        yield f"{label:<{_LABEL}}{size_text(count * kind.bytes):>{_NUMBER}}"
    yield f"{'  on disk':<{_LABEL}}{size_text(total):>{_NUMBER}}"


def _verdict(plan: Plan) -> Iterator[str]:
    memory = size_text(plan.device_memory)
    known = "" if plan.memory.activations is not None else ", activations not counted"
    if not plan.changes and plan.stuck is None:
        barely = plan.verdict(plan.peak) == "tight"
        yield from _wrapped(
            f"It fits: {size_text(plan.peak)} of {memory}{known}."
            + (
                " Barely: what is left may not do for the runtime and the compiler."
                if barely
                else ""
            )
        )
        return
    yield from _wrapped(
        f"It does not fit: {plan.peak / 1e9:.1f} GB of {memory}{known}. "
        + ("What to change, in this order, each on top of the last:" if plan.changes else "")
    )
    for number, change in enumerate(plan.changes, 1):
        fits = plan.verdict(change.total) != "no"
        then = f"{change.total / 1e9:.1f} GB{', which fits' if fits else ''}"
        yield from _wrapped(f"{number}. {change.text}: {then}", "   ")
    if plan.stuck is not None:
        yield from _wrapped(plan.stuck)


def _wrapped(line: str, indent: str = "") -> Sequence[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def as_json(plan: Plan) -> str:
    """All numbers, in bytes."""
    content: dict[str, Any] = dataclasses.asdict(plan)
    content |= {
        "precompute_total": plan.precompute_total,
        "train_total": plan.memory.total,
        "fits": plan.verdict(plan.peak) != "no",
    }
    for row, alternative in zip(content["alternatives"], plan.alternatives):
        row["total"] = {s: m.total for s, m in alternative.memory.items()}
    return json.dumps(content, indent=2)
