"""Ctrl-C, with a framework in the process that has its own idea of it.

While MindSpore runs a graph, it replaces the handler of SIGINT, below Python, by one that sends
SIGTERM to the process: Ctrl-C would end a run silently and leave behind what it has begun. And
an exception that is raised within its compiler, which calls Python all the time, comes out as
pages of messages and a file in the working directory. Hence both signals raise KeyboardInterrupt,
and end the process on the spot where the compiler is at work.

Either happens when the interpreter next runs a line of Python, which in MindSpore can take
seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from launcher.child import INTERRUPTED, parent

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(clean_up: Callable[[], object]) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block.

    Args:
        clean_up: called if the process has to end on the spot.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for sig in _SIGNALS:  # the way out is not to be interrupted a second time
            signal.signal(sig, signal.SIG_IGN)
        if (launcher := parent()) is not None:
            launcher.tell(signal=signal.Signals(number).name)
        if not _is_compiling(frame):
            raise KeyboardInterrupt
        clean_up()
        say_interrupted()
        os._exit(INTERRUPTED)

    before = {sig: signal.signal(sig, interrupt) for sig in _SIGNALS}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the signals wait for the end of the block.

    For the import of MindSpore, which cannot be left half-way: its exit handlers then fail, and
    abort the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Not a mask: another thread would take the signal.
    arrived: list[int] = []
    before = {sig: signal.signal(sig, lambda number, _: arrived.append(number)) for sig in _SIGNALS}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
        for number in arrived[:1]:
            signal.raise_signal(number)


def say_interrupted() -> None:
    """The one line that a run ends with that was interrupted."""
    if parent() is not None:  # which says it
        return
    with suppress(OSError, ValueError):
        # On a terminal there stands half a line: the time so far, and ^C.
        start = "\n" if sys.stderr.isatty() else ""
        print(f"{start}launcher: interrupted", file=sys.stderr, flush=True)


def _is_compiling(frame: FrameType | None) -> bool:
    """True if MindSpore's compiler is on the stack."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("mindspore.") and frame.f_code.co_name == "compile":
            return True
        frame = frame.f_back
    return False
