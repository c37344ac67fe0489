"""Batches made ahead, by a thread, while the device computes.

    with Prefetch(make, start=0, stop=1000) as batches:
        batch, waited = batches.get(0)     # seconds that the step had to wait for it
        batch, waited = batches.get(0)     # the same batch: a step can be tried again
        batch, waited = batches.get(1)

What the thread makes must depend on nothing but the step's number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long the end of the block waits for a batch that is being made, in seconds. A read from a
#: disk that does not answer must not keep a run from ending.
PATIENCE = 10.0


class Prefetch(Generic[T]):
    """The batches of consecutive steps.

    A context manager; the thread lives inside the block, and is gone after it unless `make` does
    not return within `PATIENCE`: then it is left behind and ends with the process.

    Args:
        make: step to its batch; called once per step, in order, never twice at a time.
        start, stop: the first step, and the one after the last.
        ahead: batches that may be ready and not yet asked for. 0: no thread, `get` makes them.
    """

    def __init__(self, make: Callable[[int], T], start: int, stop: int, ahead: int = 2) -> None:
        if ahead < 0:
            raise ValueError(f"ahead is {ahead}")
        self._make = make
        self._stop = stop
        self._ahead = ahead
        self._step = start - 1  # the last one that was got
        self._got: tuple[int, T] | None = None  # its batch
        self._ready: dict[int, T] = {}
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()  # guards all of these
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetch[T]:
        if self._ahead:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        if self._ahead:
            self._thread.join(PATIENCE)

    def get(self, step: int) -> tuple[T, float]:
        """The batch of a step, and the seconds that were spent waiting for it.

        Args:
            step: the step of the last call, whose batch is returned again, or the next one.

        Raises:
            what `make` raised for this step, with its traceback.
        """
        if self._got is not None and self._got[0] == step:
            return self._got[1], 0.0
        if step != self._step + 1 or step >= self._stop:
            raise ValueError(f"step {step} after step {self._step}, of steps below {self._stop}")
        started = time.perf_counter()
        batch = self._take(step) if self._ahead else self._make(step)
        self._step, self._got = step, (step, batch)
        return batch, time.perf_counter() - started

    def _take(self, step: int) -> T:
        """Wait for the thread."""
        with self._changed:
            while step not in self._ready:
                if self._error is not None:
                    raise self._error
                if self._closed:
                    raise ValueError(f"step {step} after the end of the block")
                self._changed.wait()
            self._step = step  # the thread may make one more
            self._changed.notify_all()
            return self._ready.pop(step)

    def _work(self) -> None:
        """Make one batch after the other."""
        try:
            for step in range(self._step + 1, self._stop):
                with self._changed:
                    while step > self._step + self._ahead and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                batch = self._make(step)
                with self._changed:
                    self._ready[step] = batch
                    self._changed.notify_all()
        except BaseException as error:  # raised again where the batch is asked for
            with self._changed:
                self._error = error
                self._changed.notify_all()
