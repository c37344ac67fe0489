"""Signals, with a framework in the process that has its own idea of them.

While MindSpore runs a graph, it replaces the handler of SIGINT, below Python, by one that sends
SIGTERM to the process: nobody could tell Ctrl-C from `kill` any more. So `listening` keeps SIGINT
from all threads but one, which does nothing but wait for it and hand it to Python's handler.

What a signal does depends on where the process is:

    with listening():                       # from the start; SIGUSR1 does no harm
        with interruptible(clean_up):       # SIGINT and SIGTERM raise Interrupted
            with stoppable(...) as asked:   # the training loop: they are only noted
                ...

An exception that is raised within MindSpore's compiler, which calls Python all the time, comes out
as pages of messages and a file in the working directory. Where the compiler is at work, the process
therefore ends on the spot, once it has cleaned up.

All of it happens when the interpreter next runs a line of Python, which in MindSpore can take
seconds.
"""

from __future__ import annotations

import _thread
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from launcher.child import parent

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run.

    Attributes:
        signal: its number.
        saved: where the run stands and how it goes on, in a sentence; empty: nothing is kept.
    """

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__()
        self.signal = number
        self.saved = saved


class Left(BaseException):
    """A signal has ended what may be left half-done; see `Asked.can_leave`."""


class Asked:
    """What signals have asked of the training loop.

    Attributes:
        stop: the signal that wants it to end after the step; None: none does.
        is_compiling: to be set while a graph is compiled, which takes minutes and cannot be left by
            an exception.
        can_leave: to be set around what takes long and may be left half-done: a signal then raises
            Left there.
        save: whether SIGUSR1 wants the state saved. To be set back.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.is_compiling = False
        self.can_leave = False
        self.save = False


@contextmanager
def listening() -> Iterator[None]:
    """Make sure that SIGINT arrives as SIGINT, whatever MindSpore does, and that SIGUSR1 does not
    kill a process that has nothing to save yet.

    To be entered before MindSpore is imported: threads that exist by then keep their own mask.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    main = threading.get_ident()
    is_waiting = threading.Event()
    is_over = threading.Event()

    def wait() -> None:
        # SIGURG, which nobody minds, ends it.
        expected = {signal.SIGINT, signal.SIGURG}
        signal.pthread_sigmask(signal.SIG_BLOCK, expected)
        is_waiting.set()
        while not is_over.is_set():
            if signal.sigwait(expected) == signal.SIGINT:
                _thread.interrupt_main(signal.SIGINT)
                signal.pthread_kill(main, signal.SIGURG)  # out of a system call that it is in

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, _do_nothing),
        signal.SIGURG: signal.signal(signal.SIGURG, _do_nothing),
    }
    _unblock_in_forks()
    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    is_waiting.wait()
    try:
        yield
    finally:
        is_over.set()
        assert thread.ident is not None
        signal.pthread_kill(thread.ident, signal.SIGURG)
        thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def interruptible(
    clean_up: Callable[[], object], saved: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block, by an Interrupted.

    Args:
        clean_up: called if the process has to end on the spot.
        saved: returns `Interrupted.saved`.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for sig in _SIGNALS:  # the way out is not to be interrupted a second time
            signal.signal(sig, signal.SIG_IGN)
        if (launcher := parent()) is not None:
            launcher.tell(signal=signal.Signals(number).name)
        where = saved()
        if not _is_compiling(frame):
            raise Interrupted(number, where)
        clean_up()
        _leave(number, where)

    with _handlers(dict.fromkeys(_SIGNALS, interrupt)):
        yield


@contextmanager
def stoppable(while_compiling: Callable[[], str]) -> Iterator[Asked]:
    """Note what SIGINT, SIGTERM and SIGUSR1 ask for, and let the step go on; a second SIGINT ends
    the process at once.

    Args:
        while_compiling: saves what can be saved without MindSpore, for the case that the process
            has to end within its compiler. Returns `Interrupted.saved`.
    """
    asked = Asked()

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.stop is None:
            asked.stop = number
            # Not by the frames: MindSpore's `compile` is among them at every step, and returns
            # at once where there is a graph.
            if asked.is_compiling:
                _leave(number, while_compiling())
            if asked.can_leave and not _is_compiling(frame):
                _say("saving; Ctrl-C again leaves at once")
                raise Left
            _say("finishing the step, then saving; Ctrl-C again leaves at once")
        elif number == signal.SIGINT:
            _say("left at once: what was done since the last checkpoint is lost")
            os._exit(128 + number)

    def save(number: int, frame: FrameType | None) -> None:
        asked.save = True

    with _handlers({signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGUSR1: save}):
        yield asked


@contextmanager
def leaving(saved: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process on the spot: around the wait for a thread that cannot
    be stopped and leaves nothing half-done.

    Args:
        saved: see `Interrupted`.
    """
    with _handlers(dict.fromkeys(_SIGNALS, lambda number, _: _leave(number, saved))):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Let the signals wait for the end of the block.

    For the import of MindSpore, which cannot be left half-way: its exit handlers then fail, and
    abort the process.
    """
    # Not a mask: another thread would take the signal.
    arrived: list[int] = []
    try:
        with _handlers(dict.fromkeys(_SIGNALS, lambda number, _: arrived.append(number))):
            yield
    finally:
        for number in arrived[:1]:
            # To the process: where `listening` is at work, this thread does not take SIGINT.
            os.kill(os.getpid(), number)


def say_interrupted(saved: str = "") -> None:
    """The one paragraph that a run ends with that was interrupted.

    Args:
        saved: see `Interrupted`.
    """
    if parent() is None:  # which says it otherwise
        _say(f"interrupted{'; ' if saved else ''}{saved}")


def _leave(number: int, saved: str = "") -> None:
    say_interrupted(saved)
    os._exit(128 + number)


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        # On a terminal there stands half a line: the time so far, and ^C.
        line = ("\n" if sys.stderr.isatty() else "") + f"launcher: {text}\n"
        try:
            # Not through the stream, which the main program may be writing to at this moment.
            os.write(sys.stderr.fileno(), line.encode())
        except io.UnsupportedOperation:  # no file
            sys.stderr.write(line)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


@contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]]) -> Any:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unblock_in_forks() -> None:
    """A forked process has no thread that waits."""
    global _forks_are_unblocked
    if not _forks_are_unblocked:
        _forks_are_unblocked = True
        os.register_at_fork(
            after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        )


_forks_are_unblocked = False


def _is_compiling(frame: FrameType | None) -> bool:
    """True if MindSpore's compiler is on the stack."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("mindspore.") and frame.f_code.co_name == "compile":
            return True
        frame = frame.f_back
    return False
