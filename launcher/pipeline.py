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
from launcher.sections import precision_problems
from launcher.training.errors import UserError, refuse

if TYPE_CHECKING:
    from launcher.config import Resolved
    from launcher.plugins import Plugins
    from launcher.training.precision.report import Report
    from launcher.training.step import TrainStep


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
    check(config, plugins)
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
        cache, report = precompute(config, hook, dataset, console)
        train(config, hook, dataset, cache, report, schedule, dist, run_dir, console)


def precompute(
    config: Config, hook: Any, dataset: Dataset, console: Console
) -> tuple[Cache, Report]:
    """Encode the data set. The encoders are released at the end; what they are stored in and
    compute in is reported.
    """
    from launcher.training.cache import MemoryCache
    from launcher.training.precision.report import Report

    report = Report()
    models = prepare_models(config, hook, "precompute")
    samples = f"{len(dataset)} samples"
    busy = console.busy(f"encoding {samples}", f"encoded {samples}")
    report.add(models.cells(), differentiated=False)
    with busy if models else nullcontext():  # a recipe may have nothing to encode with
        cache = hook.precompute(config=config, models=models, dataset=dataset, cache=MemoryCache())
    for model in models.cells().values():
        for _, cell in model.cells_and_names():  # the VAE's encoder is called by itself
            report.observe_compiled(cell)
    refuse(report.problems(loss_scaling=config.precision.loss_scaling))
    report.release()
    del models
    gc.collect()
    return cache, report


def train(
    config: Config,
    hook: Any,
    dataset: Dataset,
    cache: Cache,
    report: Report,
    schedule: Schedule,
    dist: Dist,
    run_dir: RunDir,
    console: Console,
) -> None:
    """Train and export."""
    models = prepare_models(config, hook, "train")
    report.add(models.cells())
    refuse(report.problems(loss_scaling=config.precision.loss_scaling))
    collate = hook.build_collate_fn(config=config, models=models, dataset=dataset, cache=cache)
    state, step = build_state(config, hook, models, schedule, dist, run_dir)
    console.headline(describe(state, len(dataset), schedule.global_batch))
    if config.runtime.mode == "graph":
        with console.compiling():
            compiled = step.compile(schedule.batch(0, collate).micro_batches[0])
        report.observe_compiled(compiled)
    else:
        report.notes.append("runtime.mode is pynative: what was computed in was not looked for")
    console.headline(report.table())
    refuse(report.problems(loss_scaling=config.precision.loss_scaling, optimizer=state.optimizer))
    run_dir.write_json("precision.json", report.as_json())

    hook.on_train_start(state=state)
    skipped = 0
    with console.progress(state.max_train_steps) as progress:
        while state.step < state.max_train_steps:
            started = time.perf_counter()
            state.epoch = schedule.epoch(state.step)
            state.learning_rate = schedule.learning_rate(state.step)
            batch = schedule.batch(state.step, collate)
            output = hook.train_step(state=state, batch=batch)
            seconds = time.perf_counter() - started
            run_dir.write_metrics(
                step=state.step + 1,
                loss=output.loss,
                lr=state.learning_rate,
                grad_norm=output.grad_norm,
                step_seconds=seconds,
                samples_per_second=batch.samples / seconds,
                skipped=output.skipped,
                metrics=output.metrics,
            )
            if output.skipped:  # not a step: it is tried again, at a lower loss scale
                skipped += 1
                if skipped == config.precision.max_skipped_updates:
                    raise UserError(explain_skipping(state, batch, output, skipped))
                continue
            skipped = 0
            state.step += 1
            progress.update(state.step, loss=output.loss, lr=state.learning_rate)
            hook.on_step_end(state=state, output=output)

    files = hook.export_weights(config=config, models=models, directory=run_dir.path)
    hook.on_train_end(state=state)
    for file in files:
        console.result(str(file))


def check(config: Config, plugins: Plugins) -> None:
    """Refuse a run that cannot succeed, before anything is loaded.

    Raises:
        UserError: names every problem found.
    """
    problems = rundir_problems(config.train.output_dir)
    problems += plugins.hook.check_config(config=config)
    if plugins.leaves_to_launcher("build_optimizer"):
        problems += precision_problems(config.precision, config.optimizer)
    refuse(problems)


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
) -> tuple[TrainState, TrainStep]:
    """Loss, optimizer and step around the models."""
    from mindspore import nn

    from launcher.training.step import TrainStep, dynamic_loss_scaler

    section = config.train
    loss = hook.build_loss(config=config, models=models)
    if not isinstance(loss, nn.Cell):
        raise UserError(
            f"build_loss returned {loss!r}, and must return a mindspore.nn.Cell. `launcher hooks` "
            "with the arguments of this run shows whose build_loss it is."
        )
    parameters = trainable_parameters(models)
    # Known only here, and better found now than when the training is done.
    size = sum(parameter.nbytes for parameter in parameters)
    run_dir.require_space(size, "the weights that are trained")
    optimizer = hook.build_optimizer(config=config, parameters=parameters)
    step = TrainStep(
        loss,
        optimizer,
        max_grad_norm=section.max_grad_norm,
        accumulation_steps=section.gradient_accumulation_steps,
        loss_scaler=dynamic_loss_scaler() if config.precision.loss_scaling else None,
    )

    def compiled_step(batch: Batch, rate: float) -> StepOutput:
        scale = step.loss_scale
        metrics = {} if scale is None else {"loss_scale": scale}
        mean_loss, grad_norm, applied = step(batch.micro_batches, rate)
        return StepOutput(mean_loss, grad_norm, skipped=not applied, metrics=metrics)

    state = TrainState(
        config=config,
        models=models,
        loss=loss,
        optimizer=optimizer,
        compiled_step=compiled_step,
        max_train_steps=schedule.total_steps,
        output_dir=run_dir.path,
        dist=dist,
    )
    return state, step


def explain_skipping(state: TrainState, batch: Batch, output: StepOutput, skipped: int) -> str:
    """Why no update could be applied for so long, found out by a pass over the batch."""
    from launcher.training.nonfinite import NOTHING_FOUND, diagnose

    parameters = state.models.trainable_parameters()
    scale = output.metrics.get("loss_scale", 1.0)
    found = NOTHING_FOUND
    for micro_batch in batch.micro_batches:
        found = diagnose(state.loss, micro_batch, parameters, scale)
        if not found.startswith(NOTHING_FOUND):
            break
    return (
        f"step {state.step + 1} was tried {skipped} times without finite gradients, at last with "
        f"the loss multiplied by {scale:g}; that is precision.max_skipped_updates. "
        f"{found} {state.output_dir / 'metrics.jsonl'} has what was done until then. Other "
        "ways out: precision.mixed_precision=bf16, whose range is float32's, or a lower "
        "train.learning_rate."
    )


def trainable_parameters(models: Models) -> list[Any]:
    """What is trained.

    Raises:
        UserError: nothing is.
    """
    parameters = models.trainable_parameters()
    if not parameters:
        raise UserError(
            "no parameter is trainable: configure_trainable left requires_grad False everywhere. "
            "Unfreeze the part that is to be trained."
        )
    return parameters


def describe(state: TrainState, samples: int, global_batch: int) -> str:
    """One line: on how much, for how long."""
    return (
        f"training for {state.max_train_steps} steps of {global_batch} samples, "
        f"{samples} samples in the data set"
    )


def config_text(plugins: Plugins, config: Config) -> str:
    """The configuration as YAML that, given as `--config`, repeats the run."""
    from launcher.config import to_yaml

    chosen = {"recipe": plugins.recipe, "plugins": plugins.variants}
    return to_yaml({name: value for name, value in chosen.items() if value}, config)
