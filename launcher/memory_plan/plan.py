"""What a run takes, whether it fits, what would take less."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hooks.types import Config, MemoryEstimate
from launcher.memory_plan.accounting import (
    STATE,
    ZERO_STAGES,
    Memory,
    Part,
    Weight,
    parts,
    training_memory,
)
from launcher.sections import precision_problems
from launcher.training.errors import refuse

if TYPE_CHECKING:
    from launcher.memory_plan.survey import Seen, Survey
    from launcher.plugins import Plugins

#: Of the launcher's optimizers, one for each amount of state.
COMPARED = {"fp32": ("adamw", "came", "muon"), "half": ("adamw_upcast", "adamw_bf16")}

_BF16 = {"mixed_precision": "bf16"}

#: What is full beyond this may not run: activations are an estimate, and the runtime and the
#: compiler need some memory too.
COMFORTABLE = 0.9


@dataclass(frozen=True)
class EncodingSize:
    """A kind of encodings; see `hooks.types.MemoryEstimate`."""

    kind: str
    bytes: int
    per_sample: int
    count: int | None


@dataclass(frozen=True)
class Alternative:
    """A row of the comparison.

    Attributes:
        policies: letters of the policies that come to the same in this stage.
        optimizer: `optimizer.name`.
        checkpointing: whether activations are recomputed; None: the recipe does not say.
        memory: on one device, by ZeRO stage.
        chosen: whether it is what the configuration says.
    """

    policies: str
    optimizer: str
    checkpointing: bool | None
    memory: dict[int, Memory]
    chosen: bool = False


@dataclass(frozen=True)
class Change:
    """Something to be changed, and what the step takes after it and those before it."""

    text: str
    total: float


@dataclass(frozen=True)
class Plan:
    """What `launcher plan` shows; sizes in bytes.

    Attributes:
        recipe: its name.
        notes: where sizes come from.
        device_memory: of one device.
        devices: among how many ZeRO divides.
        precompute: parts of that stage.
        encoding: activations while encoding, an estimate; None: unknown.
        released: how the encoders are released before training.
        train: parts of that stage.
        batch: samples of a micro-batch.
        memory: of a step on one device.
        checkpointing: whether the recipe recomputes activations; None: it does not say.
        encodings: what the data set comes to.
        samples: in the data set; None: it was not opened.
        alternatives: other policies, optimizers, checkpointing.
        changes: what to change, in order; empty if it fits.
        stuck: why no change is enough; None if it fits, or will.
    """

    recipe: str
    notes: Sequence[str]
    device_memory: float
    devices: int
    precompute: list[Part]
    encoding: float | None
    released: str
    train: list[Part]
    batch: int
    memory: Memory
    checkpointing: bool | None
    encodings: Sequence[EncodingSize]
    samples: int | None
    alternatives: list[Alternative] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    stuck: str | None = None

    @property
    def precompute_total(self) -> float:
        """Of the first stage."""
        return sum(part.bytes for part in self.precompute) + (self.encoding or 0)

    @property
    def peak(self) -> float:
        """Of the larger stage."""
        return max(self.precompute_total, self.memory.total)

    def verdict(self, total: float) -> str:
        """`fits`, `tight` or `no`."""
        if total > self.device_memory:
            return "no"
        return "fits" if total <= COMFORTABLE * self.device_memory else "tight"


def make_plan(plugins: Plugins, config: Config, *, device_memory: float, devices: int) -> Plan:
    """Count what a run takes.

    Args:
        plugins: the recipe and its variants.
        config: the resolved configuration.
        device_memory: bytes of one device.
        devices: among how many ZeRO divides.

    Raises:
        UserError: the models cannot be built as the configuration says.
    """
    from launcher.memory_plan.survey import Survey

    if plugins.leaves_to_launcher("build_optimizer"):
        refuse(precision_problems(config.precision, config.optimizer))
    survey = Survey(plugins, config)
    seen = survey.look(config)
    estimate = seen.estimate
    plan = Plan(
        recipe=plugins.recipe,
        notes=survey.notes,
        device_memory=device_memory,
        devices=devices,
        precompute=parts(seen.encoders),
        encoding=estimate.encoding,
        released=_released(config),
        train=parts(seen.networks),
        batch=config.train.train_batch_size,
        memory=_memory(seen, survey.state(config), config, estimate.checkpointing),
        checkpointing=estimate.checkpointing,
        encodings=[EncodingSize(*size) for size in estimate.encodings],
        samples=None if survey.dataset is None else len(survey.dataset),
    )
    plan = dataclasses.replace(
        plan, alternatives=list(_alternatives(survey, config, devices, seen))
    )
    changes, stuck = _what_to_change(plan, survey, config, seen)
    return dataclasses.replace(plan, changes=changes, stuck=stuck)


def _memory(
    seen: Seen, state: Callable[[Weight], float], config: Config, checkpointing: bool | None
) -> Memory:
    return training_memory(
        seen.networks,
        state,
        accumulation_steps=config.train.gradient_accumulation_steps,
        activations=_activations(seen.estimate, checkpointing),
        encoders=_total(seen.encoders) if _released(config) == "keep" else 0,
        averaged=config.train.ema_decay is not None,
    )


def _activations(estimate: MemoryEstimate, checkpointing: bool | None) -> float | None:
    return estimate.checkpointed if checkpointing else estimate.activations


def _released(config: Config) -> str:
    """How the encoders are released before training."""
    way: str = config.precision.release_text_encoders
    return way


def _total(weights: Iterable[Weight]) -> int:
    return sum(weight.bytes for weight in weights)


# -------------------------------------------------------------------------------------------
# Alternatives
# -------------------------------------------------------------------------------------------


def _alternatives(
    survey: Survey, config: Config, devices: int, chosen: Seen
) -> Iterator[Alternative]:
    """The configuration as it is, and other policies with the optimizers that allow them."""
    from launcher.memory_plan.survey import policies

    def rows(
        letters: str, policy: Config, seen: Seen, optimizer: str, state: Callable[[Weight], float]
    ) -> Iterator[Alternative]:
        known = seen.estimate.checkpointing is not None
        for checkpointing in (False, True) if known else (None,):
            memory = _memory(seen, state, policy, checkpointing)
            yield Alternative(
                letters,
                optimizer,
                checkpointing,
                {stage: memory.divided(stage, devices) for stage in ZERO_STAGES},
                chosen=seen.networks == chosen.networks
                and optimizer == own
                and checkpointing == chosen.estimate.checkpointing,
            )

    by_launcher = survey.plugins.leaves_to_launcher("build_optimizer")
    own = config.optimizer.name if by_launcher else "(a plugin's)"
    # A and B differ in the text encoders, which are seldom in the training step.
    groups: dict[str, tuple[Config, Seen]] = {}
    for letter, policy in policies(config).items():
        seen = survey.look(policy)
        same = next((name for name, (_, s) in groups.items() if s.networks == seen.networks), None)
        groups[f"{same}, {letter}" if same else letter] = (
            groups.pop(same) if same else (policy, seen)
        )
    if not any(seen.networks == chosen.networks for _, seen in groups.values()):
        groups = {"as set": (config, chosen), **groups}
    for letters, (policy, seen) in groups.items():
        if not by_launcher:
            yield from rows(letters, policy, seen, own, survey.state(policy))
            continue
        is_half = any(w.trained and w.dtype != "float32" for w in seen.networks)
        names = list(COMPARED["half" if is_half else "fp32"])
        if seen.networks == chosen.networks and own not in names:
            names.insert(0, own)
        for name in names:
            yield from rows(letters, policy, seen, name, STATE[name])


# -------------------------------------------------------------------------------------------
# What to change
# -------------------------------------------------------------------------------------------


def _what_to_change(
    plan: Plan, survey: Survey, config: Config, seen: Seen
) -> tuple[list[Change], str | None]:
    """Changes in order of what they cost, one on top of the other, until it fits; and what still
    does not fit then."""
    changes: list[Change] = []
    stuck = []
    stages = (
        ("encoding", plan.precompute_total, _smaller_encoders(plan, survey, config)),
        ("training", plan.memory.total, _smaller_steps(plan, survey, config, seen)),
    )
    for what, total, smaller in stages:
        while total > plan.device_memory and (change := next(smaller, None)):
            changes.append(change)
            total = change.total
        if total > plan.device_memory:
            stuck.append(f"{what} still takes {total / 1e9:.1f} GB")
    if not stuck:
        return changes, None
    return changes, (
        f"That is not enough: {' and '.join(stuck)} of {plan.device_memory / 1e9:.1f} GB. Train "
        "fewer parameters, give a smaller resolution, or take a larger device."
    )


def _smaller_encoders(plan: Plan, survey: Survey, config: Config) -> Iterator[Change]:
    total = plan.precompute_total
    for text, values in (
        ("precision.mixed_precision=bf16: what encodes images takes half", _BF16),
        ("precision.text_encoders=half: the text encoders take half", {"text_encoders": "half"}),
    ):
        if values == _BF16 and config.precision.mixed_precision != "no":
            continue
        config = _with(config, precision=values)
        seen = survey.look(config)
        smaller = _total(seen.encoders) + (seen.estimate.encoding or 0)
        if smaller < total:
            total = smaller
            yield Change(text, total)


def _smaller_steps(plan: Plan, survey: Survey, config: Config, seen: Seen) -> Iterator[Change]:
    """What makes a step smaller, cheapest first. What does not is left out."""
    checkpointing = plan.checkpointing
    state, last = survey.state(config), plan.memory.total

    def change(text: str) -> Iterator[Change]:
        nonlocal last
        total = _memory(seen, state, config, checkpointing).total
        if total < last:
            last = total
            yield Change(text, total)

    if plan.memory.encoders:
        config = _with(config, precision={"release_text_encoders": "process"})
        yield from change("precision.release_text_encoders=process: no encoder stays")
    if config.precision.mixed_precision == "no":
        config = _with(config, precision=_BF16)
        seen = survey.look(config)
        yield from change("precision.mixed_precision=bf16: what is frozen takes half")
    if checkpointing is False and seen.estimate.checkpointing_option:
        checkpointing = True
        yield from change(f"{seen.estimate.checkpointing_option}: the same results, more slowly")
    batch, steps = config.train.train_batch_size, config.train.gradient_accumulation_steps
    before = config, seen
    values = {"train_batch_size": 1, "gradient_accumulation_steps": steps * batch}
    config = _with(config, train=values)
    seen = survey.look(config)
    smaller = list(
        change(
            f"train.train_batch_size=1 and train.gradient_accumulation_steps={steps * batch}: the "
            "same batch, more slowly"
        )
    )
    yield from smaller
    if not smaller:  # the sums of the gradients take more than activations give back
        config, seen = before
    if config.train.ema_decay is not None:
        config = _with(config, train={"ema_decay": None})
        yield from change("train.ema_decay=null: no moving average")
    if not survey.plugins.leaves_to_launcher("build_optimizer"):
        return
    if config.precision.trainable_params == "fp32":
        if config.optimizer.name not in ("came", "muon"):
            state = STATE["came"]
            yield from change("optimizer.name=came: another optimizer, with half the state")
        config = _with(config, precision={"trainable_params": "half"})
        seen, state = survey.look(config), STATE["adamw_upcast"]
        yield from change(
            "in place of that optimizer, policy C (--config precision/policy_c): what is trained "
            "in half precision, rounded at random"
        )
    else:
        state = STATE["adamw_upcast"]
        yield from change("optimizer.name=adamw_upcast: no float32 copy of what is trained")


def _with(config: Config, **sections: dict[str, Any]) -> Config:
    changed = {n: dataclasses.replace(config[n], **values) for n, values in sections.items()}
    return Config({**config, **changed})
