"""A service that a thread of its own talks to.

A step only puts down what is to be said. Clients wait for networks and disks where one would not
think so: beginning a run takes up to 100 s and ending one has no limit while a server does not
answer. They also set signal handlers, which only the main thread may: here they do not.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

#: Calls that may wait for their turn. At a step a second, a service may be away for hours.
BACKLOG = 10_000


class TooSlowError(Exception):
    """A service does not answer, or not in time."""


class ClientExitError(Exception):
    """A client wanted to end the process."""


class Background:
    """Calls an object in a thread, one call after the other.

    Args:
        name: of the thread.
        make: makes the object; the first thing that the thread does.
        backlog: calls that may wait.
    """

    def __init__(self, name: str, make: Callable[[], Any], backlog: int = BACKLOG) -> None:
        self._make = make
        self._backlog = backlog
        self._calls: deque[Callable[[Any], object]] = deque()
        self._error: Exception | None = None
        self._is_made = self._is_ending = self._is_over = False
        self._changed = threading.Condition()  # guards all of these
        # A daemon: it may hang in a client when the process ends.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def call(self, call: Callable[[Any], object]) -> None:
        """Let the thread call this with the object. Does not wait.

        Raises:
            TooSlowError: too many calls are waiting. They are forgotten, and no more are made.
            what an earlier call, or `make`, raised.
        """
        with self._changed:
            self._raise_error()
            if (waiting := len(self._calls)) >= self._backlog:
                self._forget()
                raise TooSlowError(f"{waiting} messages have not been taken")
            self._calls.append(call)
            self._changed.notify_all()

    def end(self) -> None:
        """No more calls come. Does not wait, and does not raise."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()

    def wait_made(self, seconds: float) -> None:
        """Wait until the object is there.

        Raises:
            TooSlowError: it is not, after so many seconds. No calls are made any more.
            what `make` raised.
        """
        with self._changed:
            try:
                self._wait(lambda: self._is_made or self._is_over, seconds)
            except TooSlowError:
                self._forget()
                raise

    def wait_over(self, seconds: float) -> None:
        """After `end`: wait until all calls are done.

        Raises:
            TooSlowError: they are not, after so many seconds. The thread goes on with them.
            what a call raised.
        """
        with self._changed:
            self._wait(lambda: self._is_over, seconds)

    def _wait(self, is_so: Callable[[], bool], seconds: float) -> None:
        started = time.monotonic()
        done = self._changed.wait_for(is_so, max(seconds, 0))
        self._raise_error()
        if not done:
            raise TooSlowError(f"no answer within {time.monotonic() - started:.0f} s")

    def _forget(self) -> None:
        self._calls.clear()
        self._is_ending = True
        self._changed.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        """The thread."""
        error: Exception | None = None
        try:
            made = self._make()
            with self._changed:
                self._is_made = True
                self._changed.notify_all()
            while (call := self._next()) is not None:
                call(made)
        except Exception as raised:
            error = raised
        except BaseException as raised:  # some leave by SystemExit, without a login for instance
            error = ClientExitError(f"its client ended with {raised!r}")
        with self._changed:
            self._error, self._is_over = error, True
            self._changed.notify_all()

    def _next(self) -> Callable[[Any], object] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._is_ending)
            return self._calls.popleft() if self._calls else None
