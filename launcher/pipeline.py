"""A training run, from configuration to exported weights: the hooks of `hooks/specs.py` in order.

The run has two stages. `precompute` encodes the data set with the parts that only encode
(text encoders, VAE), see `launcher.encoding`; `train` holds the parts of the training step. Both
are built, frozen and cast before anything is read or encoded: what is wrong with them shows in
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hooks.types import Batch, Config, Dataset, Dist, Models, StepOutput, TrainState
from launcher import child
from launcher.console import Console
from launcher.encoding import Encoded, EncodingStage, child_task
from launcher.feed import Feed, Graphs
from launcher.interrupt import deferred, interruptible
from launcher.parts import prepare_models, trainable_parameters
from launcher.rundir import CONFIG, RunDir
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
    schedule = new_schedule(config, dataset, dist)
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
        # The run's own file: what the arguments name may have changed, or been a pipe.
        arguments = ["--config", str(run_dir.path / CONFIG), *_flags(command_line)]
        in_child = config.precision.release_text_encoders == "process"
        if in_child and getattr(dataset, "is_incomplete", False):
            # Making data takes models, whose memory this process would not get back.
            child.run("precompute", arguments, *child_task(config))
        dataset = hook.prepare_data(config=config, dataset=dataset, say=console.headline)
        networks = prepare_networks(config, hook)
        stage = EncodingStage(
            plugins,
            config,
            networks,
            dataset,
            console,
            arguments=arguments if in_child else None,
        )
        train(config, hook, networks, dataset, stage, schedule, dist, run_dir, console)


def _flags(command_line: list[str]) -> list[str]:
    """What a child process is told of this one's command line besides the configuration."""
    return [argument for argument in command_line if argument in ("-v", "--verbose", "--trace")]


def precompute(plugins: Plugins, resolved: Resolved, console: Console) -> Encoded:
    """Encode the data set, in this process, and stop."""
    config, hook = resolved.config, plugins.hook
    problems = stage_problems(plugins, config)
    if plugins.leaves_to_launcher("plan_encodings"):
        problems.append(f"the recipe {plugins.recipe} has nothing to encode before training.")
    refuse(problems + hook.check_config(config=config))
    choose_device(config)
    dataset = hook.build_dataset(config=config, dist=Dist())
    with interruptible(lambda: None):
        dataset = hook.prepare_data(config=config, dataset=dataset, say=console.headline)
        networks = prepare_networks(config, hook)
        stage = EncodingStage(plugins, config, networks, dataset, console)
        return stage.run()


def train(
    config: Config,
    hook: Any,
    models: Models,
    dataset: Dataset,
    stage: EncodingStage,
    schedule: Schedule,
    dist: Dist,
    run_dir: RunDir,
    console: Console,
) -> None:
    """Encode, train and export.

    Args:
        models: the parts of the `train` stage, cast, without values.
    """
    from launcher.training import weights

    encoded = stage.run()
    with console.busy("loading the networks", "loaded the networks"):
        weights.load(models.cells().values())
    report = encoded.report
    report.add(models.cells())
    collate = stage.build_collate_fn(models, encoded)
    state, step = build_state(config, hook, models, schedule, dist, run_dir)
    for line in describe(state, len(dataset), schedule):
        console.headline(line)
    graphs = None
    if config.runtime.mode == "graph":
        graphs = Graphs(step, schedule.shapes, console)
    feed = Feed(
        lambda number: schedule.batch(number, collate),
        state.max_train_steps,
        config.runtime.prefetch,
        lambda key: stage.mend(encoded, key),
        console.headline,
    )
    with feed:
        if graphs is not None:
            for compiled in graphs.compile_for(feed.get(0)[0]):
                report.observe_compiled(compiled)
        else:
            report.notes.append("runtime.mode is pynative: what was computed in was not looked for")
        console.headline(report.table())
        refuse(
            report.problems(loss_scaling=config.precision.loss_scaling, optimizer=state.optimizer)
        )
        run_dir.write_json("precision.json", report.as_json())
        hook.on_train_start(state=state)
        loop(config, hook, state, schedule, feed, graphs, report, run_dir, console)

    files = hook.export_weights(config=config, models=models, directory=run_dir.path)
    hook.on_train_end(state=state)
    for file in files:
        console.result(str(file))


def loop(
    config: Config,
    hook: Any,
    state: TrainState,
    schedule: Schedule,
    feed: Feed,
    graphs: Graphs | None,
    report: Report,
    run_dir: RunDir,
    console: Console,
) -> None:
    """The steps.

    Args:
        graphs: compiles what is not yet; None: nothing is compiled.
        report: looks at what is compiled.
    """
    skipped = 0
    with console.progress(state.max_train_steps) as progress:
        while state.step < state.max_train_steps:
            batch, waited = feed.get(state.step)
            for compiled in [] if graphs is None else graphs.compile_for(batch):
                report.observe_compiled(compiled)
                refuse(report.problems(loss_scaling=config.precision.loss_scaling))
            started = time.perf_counter()
            state.epoch = batch.epoch
            state.learning_rate = schedule.learning_rate(state.step)
            output = hook.train_step(state=state, batch=batch)
            seconds = waited + time.perf_counter() - started
            run_dir.write_metrics(
                step=state.step + 1,
                loss=output.loss,
                lr=state.learning_rate,
                grad_norm=output.grad_norm,
                step_seconds=seconds,
                stall_share=waited / seconds,
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


def check(config: Config, plugins: Plugins) -> None:
    """Refuse a run that cannot succeed, before anything is loaded.

    Raises:
        UserError: names every problem found.
    """
    problems = rundir_problems(config.train.output_dir)
    problems += stage_problems(plugins, config)
    problems += plugins.hook.check_config(config=config)
    if plugins.leaves_to_launcher("build_optimizer"):
        problems += precision_problems(config.precision, config.optimizer)
    refuse(problems)


def stage_problems(plugins: Plugins, config: Config) -> list[str]:
    """What is wrong with the plugins and options that encoding depends on."""
    if not plugins.leaves_to_launcher("plan_encodings"):
        return []
    way = config.precision.release_text_encoders
    if way != type(config.precision).release_text_encoders:
        return [
            f"precision.release_text_encoders is {way}, but the recipe {plugins.recipe} encodes "
            "nothing before training."
        ]
    if not plugins.leaves_to_launcher("precompute"):
        return [
            "the hook precompute is implemented and plan_encodings is not, so that nobody knows "
            "what it has to encode, and whether it was encoded before. Implement both: "
            "`launcher hooks` with the arguments of this run shows who answers them."
        ]
    return []


def choose_device(config: Config) -> str:
    """Make device and mode MindSpore's own. Returns the device's name.

    Raises:
        UserError: the device is not there.
    """
    from launcher.training import device

    section = config.runtime
    with deferred():
        return device.set_up(section.device, section.device_id, section.mode)


def prepare_networks(config: Config, hook: Any) -> Models:
    """The parts of the `train` stage, cast, without values. What is wrong with them is found now,
    before anything is encoded."""
    from launcher.training.precision.report import Report

    networks = prepare_models(config, hook, "train")
    trainable_parameters(networks)
    report = Report()
    report.add(networks.cells())
    refuse(report.problems(loss_scaling=config.precision.loss_scaling))
    return networks


def new_schedule(config: Config, dataset: Dataset, dist: Dist) -> Schedule:
    """The steps of a run over a data set."""
    return Schedule(config.train, len(dataset), dist, getattr(dataset, "groups", None))


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


def describe(state: TrainState, samples: int, schedule: Schedule) -> Iterator[str]:
    """Lines: on how much, for how long, in how many shapes."""
    yield (
        f"training for {state.max_train_steps} steps of {schedule.global_batch} samples, "
        f"{samples} samples in the data set"
    )
    if schedule.shapes > 1:
        yield (
            f"images of {schedule.shapes} sizes: at most {schedule.shapes} graphs are compiled, "
            "each when its first batch comes"
        )
    if schedule.unseen:
        yield f"{schedule.unseen} samples are not seen in so many steps"


def config_text(plugins: Plugins, config: Config) -> str:
    """The configuration as YAML that, given as `--config`, repeats the run."""
    from launcher.config import to_yaml

    chosen = {"recipe": plugins.recipe, "plugins": plugins.variants}
    return to_yaml({name: value for name, value in chosen.items() if value}, config)
