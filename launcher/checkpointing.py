"""Saving the state of a run while its steps go on.

A step waits only until the state has been copied to host memory; a thread writes the copy, with
pauses unless somebody waits for it. One is written at a time: a checkpoint that is due meanwhile
is taken when the thread is free.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hooks.types import Models, TrainState
from launcher.plugin_checks import display_path
from launcher.rundir import CONFIG, FolderGoneError, RunDir, resume_command
from launcher.training import checkpoint, weights
from launcher.training.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from launcher.training.ema import Ema
    from launcher.training.step import TrainStep

#: The folder of averaged weights, in a run's and in a checkpoint's.
EMA = "ema"
#: What their names begin with among a checkpoint's tensors.
_AVERAGE = "ema."


#: What the writing thread rests after each piece, in times of what the piece took. Writing keeps
#: memory, disk and kernel busy, whatever the thread's priority: without rests a step beside it took
#: a fifth longer on two cores.
_REST = 3.0


class Pace:
    """Pauses between the pieces of something that is to disturb as little as it can."""

    def __init__(self) -> None:
        self._is_wanted = threading.Event()
        self._since = 0.0

    def start(self) -> None:
        """A first piece begins."""
        self._is_wanted.clear()
        self._since = time.perf_counter()

    def rest(self) -> None:
        """Between two pieces."""
        self._is_wanted.wait(_REST * (time.perf_counter() - self._since))
        self._since = time.perf_counter()

    def hurry(self) -> None:
        """Somebody waits for it: no more pauses until the next start."""
        self._is_wanted.set()


@dataclass(frozen=True)
class Contents:
    """What of a run a checkpoint holds.

    Attributes:
        tensors: parameters by their name in the file.
        models: the parts of the `train` stage, which are exported beside them.
        averages: the moving average of a parameter, by the parameter's `id`; empty without EMA.
    """

    tensors: Mapping[str, Any]
    models: Models
    averages: Mapping[int, Any]

    @classmethod
    def of(cls, models: Models, step: TrainStep, ema: Ema | None) -> Contents:
        """All that a continued run needs: trained weights, optimizer, loss scaler, averages."""
        averages = {} if ema is None else ema.averages()
        trained = [
            (f"{part}.{parameter.name}", parameter)
            for part, cell in models.cells().items()
            for parameter in cell.trainable_params()
        ]
        tensors = {f"weights.{name}": parameter for name, parameter in trained}
        tensors |= {f"optimizer.{name}": p for name, p in step.state().items()}
        tensors |= {
            f"{_AVERAGE}{name}": averages[id(p)] for name, p in trained if id(p) in averages
        }
        return cls(tensors, models, averages)

    def averaged(self, parameter: Any) -> np.ndarray[Any, Any]:
        """The average of a parameter; of one that has none, its value."""
        return weights.value_of(self.averages.get(id(parameter), parameter))

    def read(self, source: checkpoint.Checkpoint) -> int:
        """Set every tensor to its value in a checkpoint. Returns how many there are.

        A run that has begun to keep averages, or ceased to, goes on: the averages then begin with
        the weights of the checkpoint, or are left out.

        Raises:
            UserError: lists those that are missing, left over, or of another shape or dtype.
        """
        import mindspore as ms

        expected = {name: checkpoint.info_of(tensor) for name, tensor in self.tensors.items()}
        begins = bool(self.averages) and not checkpoint.has_tensors(source, _AVERAGE)
        if begins:
            expected = {n: info for n, info in expected.items() if not n.startswith(_AVERAGE)}
        left_out = None if self.averages else _AVERAGE
        for name, value in checkpoint.load(source, expected, left_out):
            self.tensors[name].set_data(ms.Tensor(value))
        if begins:
            for parameter in self.models.trainable_parameters():
                weights.set_value(self.averages[id(parameter)], weights.value_of(parameter))
        return len(expected)


class Saver:
    """Writes the checkpoints of a run. To be used in a `with` block, which waits for the last one.

    Args:
        options: the configuration's `checkpoint` section.
        run_dir: where they go.
        contents: what they hold.
        export: the hook `export_weights`, with the configuration.
        about: what is noted in every checkpoint.
        config_text: the configuration, which each has a copy of.
        start: the step that the run starts at.
        on_saved: called in this thread when a checkpoint is complete, with its folder.
        say: shows the user a line.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        options: Any,
        run_dir: RunDir,
        contents: Contents,
        export: Callable[..., Any],
        about: Mapping[str, Any],
        config_text: str,
        start: int,
        on_saved: Callable[[Path], object],
        say: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._run_dir = run_dir
        self._contents = contents
        self._export = export
        self._about = dict(about)
        self._config_text = config_text
        self._on_saved = on_saved
        self._say = say
        self._not_removed: str | None = None
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "checkpoint", _give_way)
        self._writing: Future[Path] | None = None
        self._copy: dict[str, np.ndarray[Any, Any]] = {}
        self._copied: tuple[int, dict[str, Any]] | None = None
        self._pace = Pace()
        self._step = start
        self._time = clock()

    @property
    def is_free(self) -> bool:
        """False while a checkpoint is being written."""
        self._collect()
        return self._writing is None

    @property
    def is_wanted(self) -> bool:
        """Whether there are to be any checkpoints, and so one of the end."""
        options = self._options
        return options.checkpointing_steps is not None or options.every_minutes is not None

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint, when so many steps are done."""
        every, minutes = self._options.checkpointing_steps, self._options.every_minutes
        if step == self._step:
            return False
        if every is not None and step // every > self._step // every:
            return True
        return minutes is not None and self._clock() - self._time >= 60 * minutes

    def take(
        self, state: TrainState, logs: Mapping[str, int], *, owes_validation: bool = False
    ) -> None:
        """Copy the state and let the copy be written.

        Args:
            logs: the sizes of the run's logs when the state was reached.
            owes_validation: one was due then, and is still to be done.
        """
        self.hold(state, logs, owes_validation=owes_validation)
        self._step, self._time = state.step, self._clock()
        self._pace.start()
        self._writing = self._pool.submit(self._write)

    def hold(
        self, state: TrainState, logs: Mapping[str, int], *, owes_validation: bool = False
    ) -> None:
        """Copy the state, for `write_held`; waits for what is being written."""
        self.wait()
        for name, tensor in self._contents.tensors.items():
            value = weights.value_of(tensor)
            if name in self._copy:
                self._copy[name][...] = value
            else:
                self._copy[name] = value.copy()
        about = self._about | {
            "epoch": state.epoch,
            "logs": dict(logs),
            "owes_validation": owes_validation,
            # A copy: the loop goes on with the original.
            "memory": json.loads(json.dumps(state.memory)),
        }
        self._copied = (state.step, about)

    def write_held(self) -> Path | None:
        """Write what was copied last, in this thread, unless that has been done. Neither MindSpore
        nor an observer is called."""
        self._pace.hurry()
        if self._writing is not None:
            return self._writing.result()
        return None if self._copied is None else self._write()

    def save(
        self, state: TrainState, logs: Mapping[str, int], *, owes_validation: bool = False
    ) -> Path:
        """Have the state in a checkpoint, now; see `take`. Returns its folder."""
        self.wait()
        if state.step != self._step or self._copied is not None:
            self.take(state, logs, owes_validation=owes_validation)
            self.wait()
        return checkpoint.path_of(self._run_dir.path, state.step)

    def save_anew(self, state: TrainState) -> Path:
        """Have the state in a checkpoint after the folder was made anew, with what it holds.

        Raises:
            OSError: it cannot be written.
        """
        self._pace.hurry()
        if self._writing is not None:
            self._writing.exception()  # it is about the folder that is gone
            self._writing = None
        self.hold(state, self._run_dir.logs.sizes())
        return self._write()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            FolderGoneError: the run's folder is not there any more.
            UserError: it could not be written.
        """
        if self._writing is not None:
            self._pace.hurry()
            self._writing.exception()
        self._collect()

    def close(self) -> None:
        """Let the one that is being written become complete; what goes wrong is not told."""
        self._pace.hurry()
        self._pool.shutdown(wait=True)

    def _collect(self) -> None:
        """Take note of a checkpoint that has been written."""
        if self._writing is None or not self._writing.done():
            return
        writing, self._writing = self._writing, None
        try:
            path = writing.result()
        except OSError as error:
            if not self._run_dir.logs.are_in_place():
                raise FolderGoneError from error
            raise UserError(self._explain(error)) from error
        if self._not_removed is not None:
            self._say(f"warning: {self._not_removed}")
            self._not_removed = None
        self._on_saved(path)

    def _write(self) -> Path:
        """Runs in the thread."""
        assert self._copied is not None
        step, about = self._copied
        # What the checkpoint says of the logs must be true after a power cut, too.
        self._run_dir.logs.sync()
        path = checkpoint.write(
            self._run_dir.path, step, self._copy, about, self._add_files, self._pace.rest
        )
        self._copied = None
        if (limit := self._options.checkpoints_total_limit) is not None:
            try:
                checkpoint.keep_newest(self._run_dir.path, limit, step)
            except OSError as error:  # the new one is there
                self._not_removed = (
                    f"a checkpoint beyond checkpoint.checkpoints_total_limit stays: {error}"
                )
        return path

    def _add_files(self, folder: Path) -> None:
        (folder / CONFIG).write_text(self._config_text, encoding="utf-8")
        contents = self._contents
        copies = {id(tensor): self._copy[name] for name, tensor in contents.tensors.items()}

        def current(parameter: Any) -> np.ndarray[Any, Any]:
            self._pace.rest()
            copy = copies.get(id(parameter))
            return weights.value_of(parameter) if copy is None else copy

        def averaged(parameter: Any) -> np.ndarray[Any, Any]:
            return current(contents.averages.get(id(parameter), parameter))

        self._export(models=contents.models, directory=folder, values=current)
        if contents.averages:
            (folder / EMA).mkdir()
            self._export(models=contents.models, directory=folder / EMA, values=averaged)

    def _explain(self, error: OSError) -> str:
        path = self._run_dir.path
        steps = checkpoint.steps_in(path)
        kept = f"The last one is {checkpoint.path_of(path, steps[-1]).name}" if steps else "None is"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = (
            "Free some space on the disk, or have fewer kept (checkpoint.checkpoints_total_limit)"
            if is_full
            else f"Mend what keeps the run from writing {error.filename or 'there'}"
        )
        return (
            f"{checkpoint.path_of(path, self._step)} could not be written: "
            f"{error.strerror or error}. {kept}{'' if steps else ' there'}. {way_out}, then go on "
            f"with `{resume_command(path)}`."
        )

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def saved_in(path: Path) -> str:
    """Where a run stands whose newest checkpoint this is, and the way on."""
    return f"the run is saved up to {display_path(path)}. To go on: `{resume_command(path.parent)}`"


def _give_way() -> None:
    """Let this thread have what time of the processors the steps leave (on Linux, niceness is a
    thread's)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
