"""The training loop: steps, what is recorded of them, and how it ends before its last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import Batch, Config, StepOutput, TrainState
from launcher.checkpointing import Saver, saved_in
from launcher.console import Console
from launcher.feed import Feed, Graphs
from launcher.interrupt import Asked, Interrupted, Left, stoppable
from launcher.plugin_checks import display_path
from launcher.rundir import FolderGoneError, RunDir, resume_command
from launcher.schedule import Schedule
from launcher.tracking import Trackers
from launcher.training import device, device_memory
from launcher.training.errors import UserError, refuse
from launcher.validation import Validator

if TYPE_CHECKING:
    from launcher.training.precision.report import Report

_SMALLER = (
    "Give a smaller train.train_batch_size and more train.gradient_accumulation_steps, for as many "
    "samples a step, and go on from the newest checkpoint, if there is one, by --resume latest. "
    "`launcher plan` with the same arguments shows what else makes it smaller."
)


@dataclass
class Loop:
    """The steps of a run.

    Attributes:
        validator: looks at what is trained; None: nobody does.
        graphs: compiles what is not yet; None: nothing is compiled.
        report: looks at what is compiled.
        set_loss_scale: gives the loss another scale; None: it is not scaled.
        config_text: to write once more if the run's folder is removed.
        owes_validation: one was due after the last step that is done, and is still to be done.
    """

    config: Config
    hook: Any
    state: TrainState
    schedule: Schedule
    feed: Feed
    graphs: Graphs | None
    report: Report
    run_dir: RunDir
    saver: Saver
    trackers: Trackers
    validator: Validator | None
    console: Console
    set_loss_scale: Callable[[float], None] | None
    config_text: str
    owes_validation: bool = False

    def run(self) -> None:
        """All steps that are not done yet.

        Raises:
            Interrupted: a signal asked for it; the state is saved.
            UserError: gradients were not finite, a checkpoint could not be written, or the run's
                folder was removed; what could be saved is.
        """
        self._first = self.state.step
        self._logs = self.run_dir.logs.sizes()  # as of the last step that is done
        self._left_out = 0
        state = self.state
        try:
            if self._first == 0 or self.owes_validation:
                self._validate_if_due()
            with (
                stoppable(self._save_while_compiling) as asked,
                self.console.progress(state.max_train_steps, state.step) as progress,
            ):
                while state.step < state.max_train_steps:
                    output = self._step(asked)
                    state.step += 1
                    progress.update(state.step, loss=output.loss, lr=state.learning_rate)
                    with self._saving_if_it_fails():
                        self._logs = self.run_dir.logs.sizes()
                        self.hook.on_step_end(state=state, output=output)
                        self._logs = self.run_dir.logs.sizes()
                        self._validate_if_due(asked)
                    self._save_if_due(asked)
                    self._stop_if_asked(asked)
                if self.saver.is_wanted:  # so that the run can be given more steps
                    self._save()
                self.saver.wait()
                self._stop_if_asked(asked)
        except (FolderGoneError, OSError) as error:
            if isinstance(error, OSError) and self.run_dir.logs.are_in_place():
                raise
            raise UserError(self._rescue()) from error

    def _stop_if_asked(self, asked: Asked) -> None:
        if asked.stop is not None:
            raise Interrupted(asked.stop, self._saved(self._save()))

    def _step(self, asked: Asked) -> StepOutput:
        """One optimisation step, tried again with a lower loss scale while gradients overflow."""
        state, section = self.state, self.config.train
        batch, waited = self.feed.get(state.step)
        self._compile_for(batch, asked)
        state.epoch = batch.epoch
        state.learning_rate = self.schedule.learning_rate(state.step)
        tries, scale = 0, None
        while True:
            started = time.perf_counter()
            with device_memory.needed_for("a training step", _SMALLER):
                output: StepOutput = self.hook.train_step(state=state, batch=batch)
            seconds = waited + time.perf_counter() - started
            try:
                self._record(batch, output, waited, seconds)
            except FolderGoneError:
                state.step += not output.skipped  # it is in the weights, which are still saved
                raise
            if not output.skipped:
                self._left_out = 0
                return output
            waited = 0.0
            tries += 1
            scale = output.metrics.get("loss_scale") if tries == 1 else scale
            if self.set_loss_scale and tries < self.config.precision.max_skipped_updates:
                continue
            if self.set_loss_scale and scale is not None:
                self.set_loss_scale(scale)  # it was not to blame
            self._left_out += 1
            too_many = self._left_out == self.config.precision.max_skipped_updates
            if section.on_nonfinite == "stop" or too_many:
                raise UserError(self._explain(batch, output, tries))
            self.console.headline(
                f"step {state.step + 1} has no finite gradients: its batch is left out"
            )
            return output

    def _compile_for(self, batch: Batch, asked: Asked) -> None:
        if self.graphs is None or self.graphs.are_there_for(batch):
            return
        if self.state.step > self._first:
            # A signal within the compiler ends the process, which then writes this.
            self.saver.hold(self.state, self._logs)
        asked.is_compiling = True
        try:
            graphs = self.graphs.compile_for(batch)
        finally:
            asked.is_compiling = False
        for compiled in graphs:
            self.report.observe_compiled(compiled)
            refuse(self.report.problems(loss_scaling=self.config.precision.loss_scaling))

    def _record(self, batch: Batch, output: StepOutput, waited: float, seconds: float) -> None:
        step = self.state.step + 1
        figures: dict[str, Any] = dict(
            loss=output.loss,
            lr=self.state.learning_rate,
            grad_norm=output.grad_norm,
            step_seconds=seconds,
            stall_share=waited / seconds,
            samples_per_second=batch.samples / seconds,
            skipped=output.skipped,
            memory_bytes=device.memory_in_use(),
        )
        self.run_dir.write_metrics(step=step, **figures, metrics=output.metrics)
        figures |= output.metrics
        self.trackers.log(step, {f"train/{name}": value for name, value in figures.items()})

    def _validate_if_due(self, asked: Asked | None = None) -> None:
        """Look at what is trained, if it is time to.

        Args:
            asked: a signal that came, or comes meanwhile, goes first: the validation is then owed.
        """
        state, validator, asked = self.state, self.validator, asked or Asked()
        is_due = validator is not None and validator.is_due(state.step, state.max_train_steps)
        self.owes_validation = is_due
        if validator is None or not is_due or asked.stop is not None:
            return
        asked.can_leave = True
        try:
            validator.run(state)
        finally:
            asked.can_leave = False
        self._logs = self.run_dir.logs.sizes()
        self.owes_validation = False

    @contextmanager
    def _saving_if_it_fails(self) -> Iterator[None]:
        """Around what follows a step, and is not needed to go on from it."""
        try:
            yield
        except FolderGoneError:
            raise
        except Left:  # what it has asked for comes next
            pass
        except Exception as error:
            saved, said = self._saved(self._save()), self._said(error)
            if said is None:  # a mistake in a plugin, whose traceback comes next
                self.console.headline(f"failed after step {self.state.step}; {saved}")
                raise
            raise UserError(f"{said} Apart from that, {saved}") from error

    def _said(self, error: Exception) -> str | None:
        """What a user is to be told of an error that is no bug; None: it is one."""
        if isinstance(error, OSError):
            # Of the run's own files: others are a plugin's matter.
            if not str(error.filename or "").startswith(str(self.run_dir.path)):
                return None
            return f"{error.filename} can be neither read nor written: {error.strerror}."
        return str(error) if isinstance(error, UserError) else None

    def _save_if_due(self, asked: Asked) -> None:
        """Take a checkpoint if one is due or SIGUSR1 wants one, and none is being written."""
        if (asked.save or self.saver.is_due(self.state.step)) and self.saver.is_free:
            asked.save = False
            self.saver.take(self.state, self._logs, owes_validation=self.owes_validation)

    def _save(self) -> Path | None:
        """Have all steps in a checkpoint. None: none was done."""
        if self.state.step == self._first:
            return None
        return self.saver.save(self.state, self._logs, owes_validation=self.owes_validation)

    def _save_while_compiling(self) -> str:
        try:
            return self._saved(self.saver.write_held())
        except OSError as error:  # must not be raised through MindSpore's compiler
            return (
                f"the last steps could not be saved ({error.strerror or error}). To go on from the "
                f"last checkpoint: `{resume_command(self.run_dir.path)}`"
            )

    def _saved(self, path: Path | None) -> str:
        """Where the run stands, and the way on."""
        if path is None:
            return f"no step was done. To go on: `{resume_command(self.run_dir.path)}`"
        return saved_in(path)

    def _explain(self, batch: Batch, output: StepOutput, tries: int) -> str:
        """Why a batch has no finite gradients, found out by a pass over it."""
        from launcher.training.nonfinite import NOTHING_FOUND, diagnose

        state = self.state
        path = self._save()
        parameters = state.models.trainable_parameters()
        scale = output.metrics.get("loss_scale", 1.0)
        found = NOTHING_FOUND
        for micro_batch in batch.micro_batches:
            found = diagnose(state.loss, micro_batch, parameters, scale)
            if not found.startswith(NOTHING_FOUND):
                break
        what = f"step {state.step + 1} has no finite gradients. "
        if tries > 1:
            what = (
                f"step {state.step + 1} was tried {tries} times without finite gradients, at last "
                f"with the loss multiplied by {scale:g}; that is precision.max_skipped_updates. "
            )
        elif self._left_out > 1:
            what = (
                f"{self._left_out} steps in a row have no finite gradients, up to step "
                f"{state.step + 1}; that is precision.max_skipped_updates. "
            )
        fp16 = "precision.mixed_precision=bf16, whose range is float32's; " if tries > 1 else ""
        done = "" if path is None else f"The steps before it are saved in {display_path(path)}. "
        return (
            f"{what}{found} {done}{state.output_dir / 'metrics.jsonl'} has what was done until "
            f"then. Ways out: {fp16}a lower train.learning_rate; or, if it is that batch alone, "
            f"`{resume_command(self.run_dir.path)} train.on_nonfinite=skip`."
        )

    def _rescue(self) -> str:
        """Save the state although the run's folder is gone. Returns what to tell the user."""
        path = self.run_dir.path
        gone = f"{path} was removed or moved while the run was writing to it"
        if self.state.step == self._first:
            return f"{gone}. No step was done."
        try:
            self.run_dir.make_anew(self.config_text)
            saved = self.saver.save_anew(self.state)
        except OSError as error:
            return (
                f"{gone}, and cannot be made again ({error.strerror or error}): what was done "
                "since it was removed is lost. If it was moved, continue it where it is now: "
                "`launcher --resume FOLDER`."
            )
        return (
            f"{gone}. The state of step {self.state.step} is saved in {saved}, in a new folder of "
            "that name; metrics.jsonl and earlier checkpoints are not. To go on: "
            f"`{resume_command(path)}`."
        )
