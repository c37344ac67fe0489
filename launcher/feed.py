"""What the training loop is fed with: batches made ahead, and the graphs that take them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hooks.types import Batch, MicroBatch
from launcher.mending import Mender
from launcher.training.prefetch import Prefetch

if TYPE_CHECKING:
    from launcher.console import Console
    from launcher.training.step import TrainStep


class Feed:
    """The batches of consecutive steps, made ahead by a thread; a damaged encoding is made anew.

    Args:
        make: step to its batch.
        start, stop: the first step, and the one after the last.
        ahead: how many batches may be ready before they are asked for.
        mender: makes it so.
    """

    def __init__(
        self,
        make: Callable[[int], Batch],
        start: int,
        stop: int,
        ahead: int,
        mender: Mender,
    ) -> None:
        self._make = make
        self._stop = stop
        self._ahead = ahead
        self._mender = mender
        self._batches = self._from(start)

    def get(self, step: int) -> tuple[Batch, float]:
        """The batch of a step, and the seconds that were spent waiting for it; see `Prefetch.get`.

        Raises:
            UserError: an encoding was damaged again after it had been made anew.
        """
        from launcher.training.cache import DamagedEntryError

        while True:
            try:
                return self._batches.get(step)
            except DamagedEntryError as error:
                self._batches.__exit__(None, None, None)
                self._mender(error)
                self._batches = self._from(step).__enter__()

    def _from(self, step: int) -> Prefetch[Batch]:
        return Prefetch(self._make, step, self._stop, self._ahead)

    def __enter__(self) -> Feed:
        self._batches.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._batches.__exit__(kind, error, traceback)


class Graphs:
    """Compiles the step for every shape of a micro-batch, and says so.

    Args:
        step: what is compiled.
        expected: how many shapes there can be.
    """

    def __init__(self, step: TrainStep, expected: int, console: Console) -> None:
        self._step = step
        self._expected = expected
        self._console = console
        self._known: set[Any] = set()

    def are_there_for(self, batch: Batch) -> bool:
        """Whether all that a batch needs is compiled."""
        return all(_shape(arrays) in self._known for arrays in batch.micro_batches)

    def compile_for(self, batch: Batch) -> list[Any]:
        """Compile what a batch needs and is not compiled yet. Returns the compiled cells."""
        compiled = []
        for arrays in batch.micro_batches:
            shape = _shape(arrays)
            if shape in self._known:
                continue
            self._known.add(shape)
            number = f" {len(self._known)} of at most {self._expected}"
            what = "the training step" if self._expected == 1 else f"training step{number}"
            note = "first step only" if self._expected == 1 else "one for each size of images"
            with self._console.compiling(what, note):
                compiled.append(self._step.compile(arrays))
        return compiled


def _shape(arrays: MicroBatch) -> Any:
    return tuple((array.shape, str(array.dtype)) for array in arrays)
