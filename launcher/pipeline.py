"""A training run, from configuration to exported weights: the hooks of `hooks/specs.py` in order.

The run has two stages. `precompute` encodes the data set with the parts that only encode
(text encoders, VAE); `train` holds the parts of the training step. Each stage builds, freezes
and casts its own parts, and the first stage's are gone before the second begins.
"""

from __future__ import annotations

import gc
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hooks.types import Batch, Cache, Config, Dataset, Dist, Models, Stage, StepOutput, TrainState
from launcher.console import Console
from launcher.interrupt import deferred, interruptible
from launcher.rundir import RunDir
from launcher.rundir import problems as rundir_problems
from launcher.schedule import Schedule
from launcher.training.errors import UserError, refuse

if TYPE_CHECKING:
    from launcher.config import Resolved
    from launcher.plugins import Plugins


def run(plugins: Plugins, resolved: Resolved, command_line: list[str], console: Console) -> None:
    """Run a recipe.

    Args:
        plugins: the defaults, the recipe and its variants, loaded and checked.
        resolved: the configuration, every option checked.
        command_line: the arguments as typed, for the record.
        console: where progress is shown.
    """
    config, hook = resolved.config, plugins.hook
    dist = Dist()
    check(config, hook)
    device = choose_device(config)
    dataset = hook.build_dataset(config=config, dist=dist)
    schedule = Schedule(config.train, len(dataset), dist)
    text = config_text(plugins, config)
    with (
        RunDir.claim(config.train.output_dir, text, is_main=dist.is_main) as run_dir,
        interruptible(run_dir.abandon),
    ):
        run_dir.write_provenance(
            command_line=command_line,
            seed=config.train.seed,
            device=device,
            world_size=dist.world_size,
            recipe=plugins.recipe,
            plugins=plugins.files(),
        )
        dataset = hook.prepare_data(config=config, dataset=dataset, say=console.headline)
        cache = precompute(config, hook, dataset, console)
        train(config, hook, dataset, cache, schedule, dist, run_dir, console)


def precompute(config: Config, hook: Any, dataset: Dataset, console: Console) -> Cache:
    """Encode the data set. The encoders are released at the end."""
    from launcher.training.cache import MemoryCache

    models = prepare_models(config, hook, "precompute")
    samples = f"{len(dataset)} samples"
    busy = console.busy(f"encoding {samples}", f"encoded {samples}")
    with busy if models else nullcontext():  # a recipe may have nothing to encode with
        cache = hook.precompute(config=config, models=models, dataset=dataset, cache=MemoryCache())
    del models
    gc.collect()
    return cache


def train(
    config: Config,
    hook: Any,
    dataset: Dataset,
    cache: Cache,
    schedule: Schedule,
    dist: Dist,
    run_dir: RunDir,
    console: Console,
) -> None:
    """Train and export."""
    models = prepare_models(config, hook, "train")
    collate = hook.build_collate_fn(config=config, models=models, dataset=dataset, cache=cache)
    state = build_state(config, hook, models, schedule, dist, run_dir)
    console.headline(describe(state, len(dataset), schedule.global_batch))
    compiles = config.runtime.mode == "graph"
    hook.on_train_start(state=state)
    with console.progress(state.max_train_steps) as progress:
        while state.step < state.max_train_steps:
            started = time.perf_counter()
            state.epoch = schedule.epoch(state.step)
            state.learning_rate = schedule.learning_rate(state.step)
            batch = schedule.batch(state.step, collate)
            with console.compiling() if compiles and state.step == 0 else nullcontext():
                output = hook.train_step(state=state, batch=batch)
            state.step += 1
            seconds = time.perf_counter() - started
            run_dir.write_metrics(
                step=state.step,
                loss=output.loss,
                lr=state.learning_rate,
                grad_norm=output.grad_norm,
                step_seconds=seconds,
                samples_per_second=batch.samples / seconds,
                skipped=output.skipped,
                metrics=output.metrics,
            )
            progress.update(state.step, loss=output.loss, lr=state.learning_rate)
            hook.on_step_end(state=state, output=output)

    files = hook.export_weights(config=config, models=models, directory=run_dir.path)
    hook.on_train_end(state=state)
    for file in files:
        console.result(str(file))


def check(config: Config, hook: Any) -> None:
    """Refuse a run that cannot succeed, before anything is loaded.

    Raises:
        UserError: names every problem found.
    """
    refuse(rundir_problems(config.train.output_dir) + hook.check_config(config=config))


def choose_device(config: Config) -> str:
    """Make device and mode MindSpore's own. Returns the device's name.

    Raises:
        UserError: the device is not there.
    """
    from launcher.training import device

    section = config.runtime
    with deferred():
        return device.set_up(section.device, section.device_id, section.mode)


def prepare_models(config: Config, hook: Any, stage: Stage) -> Models:
    """Load, freeze and cast the parts of a stage."""
    from launcher.training.freeze import freeze

    models: Models = hook.build_models(config=config, stage=stage)
    if stage == "train":
        models = hook.configure_trainable(config=config, models=models)
    else:
        freeze(models.cells().values())
    models = hook.apply_precision(config=config, models=models)
    return models


def build_state(
    config: Config, hook: Any, models: Models, schedule: Schedule, dist: Dist, run_dir: RunDir
) -> TrainState:
    """Loss, optimizer and compiled step around the models."""
    from mindspore import nn

    from launcher.training.step import TrainStep, dynamic_loss_scaler

    section = config.train
    loss = hook.build_loss(config=config, models=models)
    if not isinstance(loss, nn.Cell):
        raise UserError(
            f"build_loss returned {loss!r}, and must return a mindspore.nn.Cell. `launcher hooks` "
            "with the arguments of this run shows whose build_loss it is."
        )
    parameters = models.trainable_parameters()
    if not parameters:
        raise UserError(
            "no parameter is trainable: configure_trainable left requires_grad False everywhere. "
            "Unfreeze the part that is to be trained."
        )
    # Known only here, and better found now than when the training is done.
    size = sum(parameter.nbytes for parameter in parameters)
    run_dir.require_space(size, "the weights that are trained")
    optimizer = hook.build_optimizer(config=config, parameters=parameters)
    step = TrainStep(
        loss,
        optimizer,
        max_grad_norm=section.max_grad_norm,
        accumulation_steps=section.gradient_accumulation_steps,
        loss_scaler=dynamic_loss_scaler() if config.precision.mixed_precision == "fp16" else None,
    )

    def compiled_step(batch: Batch, rate: float) -> StepOutput:
        mean_loss, grad_norm, applied = step(batch.micro_batches, rate)
        return StepOutput(mean_loss, grad_norm, skipped=not applied)

    return TrainState(
        config=config,
        models=models,
        loss=loss,
        optimizer=optimizer,
        compiled_step=compiled_step,
        max_train_steps=schedule.total_steps,
        output_dir=run_dir.path,
        dist=dist,
    )


def describe(state: TrainState, samples: int, global_batch: int) -> str:
    """One line: what is trained, on how much, for how long."""
    from launcher.training.device import is_emulated
    from launcher.training.freeze import parameter_counts

    cells = state.models.cells()
    precision = " in bf16 (emulated)" if any(map(is_emulated, cells.values())) else ""
    counts = parameter_counts(cells)
    parts = ", ".join(
        f"{name} {total / 1e6:,.2f} M ({_share(total, trained)})"
        for name, (total, trained) in counts.items()
    )
    return (
        f"training for {state.max_train_steps} steps of {global_batch} samples{precision}, "
        f"{samples} samples in the data set; {parts}"
    )


def _share(total: int, trained: int) -> str:
    """How much of a part is trained: all, nothing, or some, as with adapters."""
    if trained in (0, total):
        return "trained" if trained else "frozen"
    return f"{trained / 1e6:,.2f} M of them trained"


def config_text(plugins: Plugins, config: Config) -> str:
    """The configuration as YAML that, given as `--config`, repeats the run."""
    from launcher.config import to_yaml

    chosen = {"recipe": plugins.recipe, "plugins": plugins.variants}
    return to_yaml({name: value for name, value in chosen.items() if value}, config)
