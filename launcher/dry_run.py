"""What a run would be, found out without loading a weight or writing a file.

launcher --recipe flux_controlnet --config my_run.yaml --dry-run
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hooks.types import Config, Dist
from launcher import resume
from launcher.hub import push
from launcher.pipeline import check, config_text, new_schedule
from launcher.plugin_checks import display_path
from launcher.schedule import Schedule
from launcher.start import Start
from launcher.validation import held_out_note, trained_samples

if TYPE_CHECKING:
    from launcher.config import Resolved
    from launcher.console import Console
    from launcher.plugins import HookInfo, Plugins


def dry_run(
    plugins: Plugins, resolved: Resolved, console: Console, resumed: str | None = None
) -> None:
    """Do what a run does before it loads weights, and print a summary.

    The device is not looked for, so that a run can be checked where there is none.

    Args:
        resumed: see `pipeline.run`.

    Raises:
        UserError: what is wrong with the configuration, the files it names, or the data set.
    """
    config, hook, dist = resolved.config, plugins.hook, Dist()
    text = config_text(plugins, config)
    start = Start.of(plugins, config.train.output_dir, text, resumed, console)
    check(config, plugins, is_continued=start.is_in_place)
    push.rehearse(plugins, config, console)
    dataset = hook.build_dataset(config=config, dist=dist)
    schedule = new_schedule(config, dataset, dist)
    start.note(**resume.notes(plugins.recipe, config.train.seed, dist, schedule.global_batch))
    if start.is_over(schedule.total_steps):
        return
    rows = list(_summary(plugins, config, len(dataset), schedule))
    if start.step:
        rows.append(("goes on from", f"step {start.step}"))
    for label, text in rows:
        console.result(f"{label:<20}{text}")
    console.result("\nNo mistake found. No weight was loaded, nothing was written.")


def _summary(
    plugins: Plugins, config: Config, samples: int, schedule: Schedule
) -> Iterator[tuple[str, str]]:
    train = config.train
    yield "recipe", plugins.recipe
    for variant in plugins.variants:
        yield "plugin", display_path(variant)
    label = "answered by others"
    for info in plugins.describe():
        for text in _not_the_recipe(info, plugins.recipe):
            yield label, f"{info.name:<20} {text}"
            label = ""
    trained = trained_samples(config, samples)
    yield "data set", f"{samples} samples{held_out_note(config)}"
    yield (
        "batch",
        f"{schedule.global_batch} samples a step: train_batch_size {train.train_batch_size}, "
        f"gradient_accumulation_steps {train.gradient_accumulation_steps}",
    )
    epochs = schedule.total_steps * schedule.global_batch / trained
    yield "steps", f"{schedule.total_steps}, which is {epochs:.3g} epochs"
    yield "precision", config.precision.mixed_precision
    yield "device", f"{config.runtime.device} (not looked for)"
    yield "output_dir", f"{os.path.abspath(os.path.expanduser(train.output_dir))} (not made)"


def _not_the_recipe(info: HookInfo, recipe: str) -> Iterator[str]:
    """Who answers or wraps a hook, unless it is the recipe itself."""
    for function in info.implementations:
        if function.plugin != recipe:
            yield function.place(info.name)
    for function in info.wrappers:
        yield f"wrapped by {function.place(info.name)}"
