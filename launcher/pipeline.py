"""A training run, from configuration to exported weights: the hooks of `hooks/specs.py` in order.

The run has two stages. `precompute` encodes the data set with the parts that only encode
(text encoders, VAE), see `launcher.encoding`; `train` holds the parts of the training step. Both
are built, frozen and cast before anything is read or encoded: what is wrong with them shows in
seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import Batch, Config, Dataset, Dist, Models, StepOutput, TrainState
from launcher import child, resume, tracking, validation
from launcher.checkpointing import EMA, Contents, Saver, saved_in
from launcher.console import Console
from launcher.encoding import Encoded, EncodingStage, cache_options, child_task
from launcher.feed import Feed, Graphs
from launcher.hub import account, push
from launcher.hub.paths import local_options
from launcher.interrupt import deferred, interruptible
from launcher.loop import Loop
from launcher.mending import Mender
from launcher.parts import prepare_models, trainable_parameters
from launcher.plugin_checks import display_path
from launcher.rundir import RunDir, expand
from launcher.rundir import problems as rundir_problems
from launcher.schedule import Schedule
from launcher.sections import precision_problems, skipping_problems
from launcher.start import EXPORTED, Start
from launcher.tracking import Occasion, Trackers
from launcher.training import checkpoint, digests
from launcher.training.errors import UserError, refuse
from launcher.validation import Validator

if TYPE_CHECKING:
    from launcher.config import Resolved
    from launcher.plugins import Plugins
    from launcher.training.ema import Ema
    from launcher.training.precision.report import Report
    from launcher.training.step import TrainStep


def run(
    plugins: Plugins,
    resolved: Resolved,
    command_line: list[str],
    console: Console,
    resumed: str | None = None,
) -> None:
    """Run a recipe.

    Args:
        plugins: the defaults, the recipe and its variants, loaded and checked.
        resolved: the configuration, every option checked.
        command_line: the arguments as typed, for the record.
        console: where progress is shown.
        resumed: `latest`, or the folder of the run or checkpoint to continue; None: a new run.
    """
    config, hook = resolved.config, plugins.hook
    dist = Dist()
    text = config_text(plugins, config)
    start = Start.of(plugins, config.train.output_dir, text, resumed, console)
    check(config, plugins, is_continued=start.is_in_place)
    push.rehearse(plugins, config, console)
    device = choose_device(config)
    dataset = hook.build_dataset(config=config, dist=dist)
    schedule = new_schedule(config, dataset, dist)
    start.note(**resume.notes(plugins.recipe, config.train.seed, dist, schedule.global_batch))
    if start.is_over(schedule.total_steps):
        if dist.is_main:
            push.after_run(plugins, config, expand(config.train.output_dir), console)
        return
    with (
        start.open(dist) as run_dir,
        interruptible(run_dir.abandon, partial(where_it_stands, run_dir.path)),
        start.config_file(run_dir) as config_file,
    ):
        provenance = dict(
            command_line=command_line,
            seed=config.train.seed,
            device=device,
            world_size=dist.world_size,
            recipe=plugins.recipe,
            local_options=local_options(config),
            plugins=plugins.files(),
        )
        if not start.is_in_place:
            run_dir.write_provenance(**provenance)
        # The run's own file: what the arguments name may have changed, or been a pipe.
        arguments = ["--config", str(config_file), *_flags(command_line)]
        in_child = config.precision.release_text_encoders == "process"
        if in_child and getattr(dataset, "is_incomplete", False):
            # Making data takes models, whose memory this process would not get back.
            child.run("precompute", arguments, *child_task(config))
        dataset = hook.prepare_data(config=config, dataset=dataset, say=console.headline)
        networks = prepare_networks(config, hook)
        start.note(networks=resume.of_networks(networks))
        kept_in = cache_options(config)
        memory = None if kept_in is None else kept_in.digests_dir
        start.note(frozen=resume.of_frozen(networks, memory))
        stage = EncodingStage(
            plugins,
            config,
            networks,
            dataset,
            console,
            arguments=arguments if in_child else None,
        )
        encoded = stage.run(
            lambda encodings: start.note(data=resume.of_data(len(dataset), encodings))
        )
        training = Training(
            config, hook, networks, dataset, stage, encoded, schedule, dist, run_dir, console
        )
        training.run(start, text, provenance)
    if dist.is_main:
        push.after_run(plugins, config, run_dir.path, console)


def where_it_stands(folder: Path) -> str:
    """What to tell of a run that is interrupted outside of its steps; empty: nothing is kept."""
    steps = checkpoint.steps_in(folder)
    return saved_in(checkpoint.path_of(folder, steps[-1])) if steps else ""


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


@dataclass
class Training:
    """The second stage of a run.

    Attributes:
        models: the parts of the `train` stage, cast, without values.
        encoded: what the first stage has left.
    """

    config: Config
    hook: Any
    models: Models
    dataset: Dataset
    stage: EncodingStage
    encoded: Encoded
    schedule: Schedule
    dist: Dist
    run_dir: RunDir
    console: Console

    def run(self, start: Start, config_text: str, provenance: dict[str, Any]) -> None:
        """Train and export."""
        from launcher.training import weights

        config, hook, console, schedule = self.config, self.hook, self.console, self.schedule
        encoded, models, run_dir = self.encoded, self.models, self.run_dir
        with console.busy("loading the networks", "loaded the networks"):
            weights.load(models.cells().values())
        report = encoded.report
        report.add(models.cells())
        collate = self.stage.build_collate_fn(models, encoded)
        state, step, ema = build_state(config, hook, models, schedule, self.dist, run_dir)
        contents = Contents.of(models, step, ema)
        start.go_on(contents, run_dir, provenance)
        state.step, state.memory = start.step, start.memory
        for line in describe(state, len(self.dataset), schedule):
            console.headline(line)
        mender = Mender(partial(self.stage.mend, encoded), console.headline)
        feed = Feed(
            lambda number: schedule.batch(number, collate),
            state.step,
            state.max_train_steps,
            config.runtime.prefetch,
            mender,
        )
        trackers = self._trackers(start.step, config_text, provenance["recipe"])
        saver = Saver(
            config.checkpoint,
            run_dir,
            contents,
            partial(hook.export_weights, config=config),
            start.about,
            config_text,
            state.step,
            lambda path: hook.on_checkpoint(state=state, directory=path),
            console.headline,
        )
        with trackers, saver, feed:
            graphs = self._compile(state, step, ema, feed, report)
            hook.on_train_start(state=state)
            scaled = config.precision.loss_scaling
            Loop(
                config,
                hook,
                state,
                schedule,
                feed,
                graphs,
                report,
                run_dir,
                saver,
                trackers,
                self._validator(
                    trackers,
                    mender,
                    is_needed=state.step < state.max_train_steps or start.owes_validation,
                ),
                console,
                partial(setattr, step, "loss_scale") if scaled else None,
                config_text,
                start.owes_validation,
            ).run()
        files = self._export_somewhere(contents, config_text)
        content = digests_of(run_dir.path, files)
        exported = {"step": state.step, "files": list(content), "sha256": content}
        run_dir.write_json(EXPORTED, exported)
        hook.on_train_end(state=state)
        for file in files:
            console.result(str(file))

    def _trackers(self, step: int, config_text: str, recipe: str) -> Trackers:
        """The services that are told of the run, by one of its processes."""
        import yaml

        section, folder = self.config.tracking, self.run_dir.path
        services = section.services if self.dist.is_main else []
        for name in (tracking.ID, *(tracking.FOLDERS[service] for service in services)):
            self.run_dir.let_write(name)
        occasion = Occasion(
            folder=folder,
            project=section.tracker_project_name or recipe,
            name=section.tracker_run_name or folder.name,
            run_id=tracking.run_id(folder) if services else "",
            step=step,
            offline=section.offline,
            config=yaml.safe_load(config_text),
        )
        return Trackers(services, occasion, self.console.headline)

    def _validator(
        self, trackers: Trackers, mender: Mender, *, is_needed: bool
    ) -> Validator | None:
        """None: the run is not validated any more.

        Args:
            is_needed: False: all steps are done already.
        """
        config, console, encoded = self.config, self.console, self.encoded
        if not config.validation.is_wanted or not is_needed:
            return None
        prepared = self.hook.build_validation(
            config=config,
            models=self.models,
            dataset=self.dataset,
            encodings=encoded.encodings,
            cache=encoded.cache,
            heldout=validation.held_out(config, self.dataset),
        )
        validator = Validator(config, self.hook, prepared, self.run_dir, trackers, console, mender)
        if config.runtime.mode == "graph":
            validator.compile()
        return validator

    def _compile(
        self, state: TrainState, step: TrainStep, ema: Ema | None, feed: Feed, report: Report
    ) -> Graphs | None:
        """Compile what the first step needs, and refuse what is not as asked for."""
        config, console = self.config, self.console
        if state.step == state.max_train_steps:  # all that is left is to export
            return None
        graphs = None
        if config.runtime.mode == "graph":
            graphs = Graphs(step, self.schedule.shapes, console)
            for compiled in graphs.compile_for(feed.get(state.step)[0]):
                report.observe_compiled(compiled)
            if ema is not None:
                with console.compiling("the moving average"):
                    ema.compile()
        else:
            report.notes.append("runtime.mode is pynative: what was computed in was not looked for")
        console.headline(report.table())
        refuse(
            report.problems(loss_scaling=config.precision.loss_scaling, optimizer=state.optimizer)
        )
        self.run_dir.write_json("precision.json", report.as_json(), replace=True)
        return graphs

    def _export_somewhere(self, contents: Contents, config_text: str) -> list[Path]:
        """Export; if the run's folder is removed meanwhile, into a new one of its name."""
        run_dir = self.run_dir
        try:
            return self._export(contents)
        except OSError:
            if run_dir.logs.are_in_place():
                raise
        run_dir.make_anew(config_text)
        self.console.headline(
            f"warning: {display_path(run_dir.path)} was removed or moved while the run was writing "
            "to it. What was trained is exported into a new folder of that name; metrics.jsonl and "
            "checkpoints are not there"
        )
        return self._export(contents)

    def _export(self, contents: Contents) -> list[Path]:
        """The trained weights, and their average."""
        export = partial(self.hook.export_weights, config=self.config, models=self.models)
        files = list(export(directory=self.run_dir.path, values=None))
        if contents.averages:
            folder = self.run_dir.path / EMA
            folder.mkdir(exist_ok=True)
            files += export(directory=folder, values=contents.averaged)
        return files


def digests_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of what was exported, by the file's name in the run's folder."""
    return {str(file.relative_to(folder)): digests.of_file(file).hex() for file in files}


def check(config: Config, plugins: Plugins, *, is_continued: bool = False) -> None:
    """Refuse a run that cannot succeed, before anything is loaded.

    Args:
        is_continued: its folder holds the run that it continues.

    Raises:
        UserError: names every problem found.
    """
    problems = [] if is_continued else rundir_problems(config.train.output_dir)
    problems += skipping_problems(config.precision, config.train)
    problems += stage_problems(plugins, config)
    problems += validation.problems(config, plugins)
    problems += tracking.not_installed(config.tracking.services)
    problems += account.problems(config.hub, config.train.output_dir)
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
    """The steps of a run over a data set, but for what is held out."""
    samples = validation.trained_samples(config, len(dataset))
    groups = getattr(dataset, "groups", None)
    return Schedule(config.train, samples, dist, None if groups is None else groups[:samples])


def build_state(
    config: Config, hook: Any, models: Models, schedule: Schedule, dist: Dist, run_dir: RunDir
) -> tuple[TrainState, TrainStep, Ema | None]:
    """Loss, optimizer, step and moving average around the models."""
    from mindspore import nn

    from launcher.training.ema import Ema
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

    ema = None if section.ema_decay is None else Ema(parameters, section.ema_decay)

    def compiled_step(batch: Batch, rate: float) -> StepOutput:
        scale = step.loss_scale
        metrics = {} if scale is None else {"loss_scale": scale}
        mean_loss, grad_norm, applied = step(batch.micro_batches, rate)
        if ema is not None and applied:
            ema.update(state.step + 1)
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
    return state, step, ema


def describe(state: TrainState, samples: int, schedule: Schedule) -> Iterator[str]:
    """Lines: on how much, for how long, in how many shapes."""
    yield (
        f"training for {state.max_train_steps} steps of {schedule.global_batch} samples, "
        f"{samples} samples in the data set{validation.held_out_note(state.config)}"
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
