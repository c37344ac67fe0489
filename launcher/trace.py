"""Show every hook call as it happens: what `--trace` prints.

    -> build_loss              my_variant.py:12
    <- build_loss              1.3 ms

A function that is called within another, such as the owner of a hook within a wrapper around it,
is indented. What is called at every step is shown once and counted; `close` shows the counts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: Hooks that are called at every step.
PER_STEP = ("train_step", "on_step_end")


@contextmanager
def tracing(write: Callable[[str], None], wanted: bool) -> Iterator[Trace | None]:
    """A trace for the block, whose counts are shown at its end; None if it is not wanted."""
    trace = Trace(write) if wanted else None
    try:
        yield trace
    finally:
        if trace is not None:
            trace.close()


@dataclass
class _Calls:
    """The calls of a function that is called at every step."""

    title: str
    place: str
    count: int = 0
    first: float = 0.0
    later: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        if self.count == 1:
            self.first = seconds
        else:
            self.later += seconds


class Trace:
    """A trace of one run.

    Args:
        write: takes a line of text.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._depth = 0
        self._calls: list[_Calls] = []

    def around(
        self, function: Callable[..., Any], hook: str, place: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """A function that does the same, and is shown when it is called.

        Args:
            function: implements a hook.
            hook: the hook.
            place: plugin, file and line, as they are to be shown.
            is_wrapper: the function is a generator around the call of others.
        """
        calls = self._counted(hook, f"{hook} (wrapper)" if is_wrapper else hook, place)
        names = function.__code__.co_varnames

        def title(arguments: tuple[Any, ...]) -> str:
            # `stage` tells the calls of build_models apart; values of other types are no short text
            shown = [f"{n}={a}" for n, a in zip(names, arguments) if isinstance(a, str)]
            text = f"{hook}({', '.join(shown)})" if shown else hook
            return f"{text} (wrapper)" if is_wrapper else text

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            with self._shown(title(arguments), place, calls):
                return function(*arguments)

        @functools.wraps(function)
        def wrap(*arguments: Any) -> Generator[Any, Any, Any]:
            with self._shown(title(arguments), place, calls):
                return (yield from function(*arguments))

        return wrap if is_wrapper else call

    def unanswered(self, call: Callable[..., Any], hook: str) -> Callable[..., Any]:
        """The caller of a hook that no plugin implements: shown the first time."""
        shown = set()

        def show_and_call(**arguments: Any) -> Any:
            if hook not in shown or hook not in PER_STEP:
                shown.add(hook)
                self._write(f"{'   ' * self._depth}-> {hook:<40} nobody")
            return call(**arguments)

        return show_and_call

    def close(self) -> None:
        """Show how often, and how long on average, the hooks of a step were called."""
        for calls in self._calls:
            if calls.count > 1:
                mean = _duration(calls.later / (calls.count - 1))
                self._write(
                    f"   {calls.title:<40} {calls.place}: {calls.count} calls, the first "
                    f"{_duration(calls.first)}, then {mean} on average"
                )
        self._calls.clear()

    def _counted(self, hook: str, title: str, place: str) -> _Calls | None:
        if hook not in PER_STEP:
            return None
        self._calls.append(_Calls(title, place))
        return self._calls[-1]

    @contextmanager
    def _shown(self, title: str, place: str, calls: _Calls | None) -> Iterator[None]:
        is_shown = calls is None or calls.count == 0
        indent = "   " * self._depth
        label = f"{title:<{max(40 - len(indent), 0)}}"
        if is_shown:
            self._write(f"{indent}-> {label} {place}")
        self._depth += 1
        ended = "raised after "
        started = time.perf_counter()
        try:
            yield
            ended = ""
        finally:
            seconds = time.perf_counter() - started
            self._depth -= 1
            if calls is not None:
                calls.add(seconds)
            if is_shown or ended:
                self._write(f"{indent}<- {label} {ended}{_duration(seconds)}")


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.0f} us"
