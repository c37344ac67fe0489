"""How a run was trained: the rows of the model card's table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from launcher.hub.finished import FinishedRun
from launcher.training.markdown import code, escaped
from launcher.training.private import last_part

if TYPE_CHECKING:
    from hooks.types import Config, ModelDescription
    from launcher.plugins import Plugins

#: Sections whose options are shown where they changed on the way.
_SHOWN = ("train", "precision", "optimizer")


def training(
    run: FinishedRun, plugins: Plugins, config: Config, description: ModelDescription
) -> Iterator[tuple[str, str]]:
    """Names and values, as Markdown."""
    train = config.train
    if description.dataset is not None:
        yield "data set", description.dataset
    yield "steps", f"{run.step:,}"
    world = run.provenance.get("world_size", 1)
    batch = train.train_batch_size * train.gradient_accumulation_steps * world
    made_of = f"{train.train_batch_size} a micro-batch, {train.gradient_accumulation_steps} of them"
    yield "batch", f"{batch} samples ({made_of}" + (f", {world} processes)" if world > 1 else ")")
    warm_up = f", {train.lr_warmup_steps} steps of warm-up" if train.lr_warmup_steps else ""
    yield "learning rate", f"{train.learning_rate:g}, {code(train.lr_scheduler)}{warm_up}"
    yield "optimizer", _optimizer(plugins, config)
    yield from _changes(run)
    yield from _precision(run)
    if train.ema_decay is not None:
        yield "moving average", f"decay {train.ema_decay:g}; its weights are in {code('ema/')}"
    for name, hooks in plugins.answered_by_variants().items():
        answered = f" ({', '.join(map(code, hooks))})" if hooks else ""
        yield "variant", code(last_part(name)) + answered
    yield "seed", str(train.seed)
    if run.last_step:
        yield "loss of the last step", number(run.last_step.get("loss"))
    if "device" in run.provenance:
        yield "device", escaped(str(run.provenance["device"]))


def _optimizer(plugins: Plugins, config: Config) -> str:
    if plugins.leaves_to_launcher("build_optimizer"):
        return code(config.optimizer.name)
    return f"that of {code(last_part(plugins.owner_of('build_optimizer')))}"


def _changes(run: FinishedRun) -> Iterator[tuple[str, str]]:
    """What had another value before a continuation that what is there now comes from."""
    left = run.step
    rows = []
    for resumed in reversed(run.resumes):
        if resumed["step"] > left:  # its steps were done again from an earlier checkpoint
            continue
        left = resumed["step"]
        shown = [
            f"{code(name)} from {escaped(str(before))} to {escaped(str(now))}"
            for name, (before, now) in resumed["changed"].items()
            if name.partition(".")[0] in _SHOWN and name != "train.output_dir"
        ]
        if shown:
            rows.append((f"changed after step {left:,}", ", ".join(shown)))
    yield from reversed(rows)


def _precision(run: FinishedRun) -> Iterator[tuple[str, str]]:
    """Of every trained part, what was asked for."""
    for name, part in dict(run.precision.get("parts", {})).items():
        if not part["trained"]:
            continue
        asked = part["asked"]
        computed = (
            "computation not said" if asked is None else f"computed in {asked['computation']}"
        )
        if asked is not None and asked["attention"] != asked["computation"]:
            computed += f", attention in {asked['attention']}"
        kept = ", ".join(part["trained"])
        yield f"precision of {code(name)}", f"{computed}, trained parameters kept in {kept}"


def number(value: Any) -> str:
    """A figure."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not finite" if value is None else escaped(str(value))
