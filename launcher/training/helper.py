"""A process beside this one that answers calls, with a device and a memory of its own.

    helper = Helper(make, arguments, task="decodes images", way_out="Use fewer.")
    helper.call("decode", latents)      # there: made = make(*arguments); made.decode(latents)

It begins from nothing (spawned, not forked: MindSpore's threads do not survive a fork) and dies
with this process, which alone sees to Ctrl-C, although that reaches every process of a terminal.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from launcher.training.errors import UserError

#: What to tell of a process that was killed by SIGKILL.
WHO_KILLS = "Where nobody did that, the system did, because memory ran out (see `dmesg`)."

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Helper:
    """Answers calls in a process of its own, which starts with the first.

    Args:
        make: a function of a module, called there once.
        arguments: its arguments, which can be pickled.
        task: what the process does, for a message: `decodes images`.
        way_out: what the user can do if it was killed, in sentences.
    """

    def __init__(
        self, make: Callable[..., Any], arguments: Sequence[Any], *, task: str, way_out: str
    ) -> None:
        # Every start of the launcher imports this module, and few need these.
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import resource_tracker

        self._task = task
        self._way_out = way_out
        self._process: int | None = None
        with _mask_kept():
            resource_tracker.ensure_running()
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(), make, tuple(arguments)),
        )

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the object there, and wait for its answer. Where the wait is
        interrupted, the process is ended, and cannot be called again.

        Raises:
            UserError: the process was killed.
            what the call, or making the object, raised.
        """
        from concurrent.futures.process import BrokenProcessPool

        try:
            if self._process is None:
                self._process = self._pool.submit(os.getpid).result()
            return self._pool.submit(_call, name, arguments).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process that {self._task} was killed. {WHO_KILLS} {self._way_out}"
            ) from error
        except Exception:
            raise
        except BaseException:
            # The interpreter, at its end, would wait for the answer.
            if self._process is not None:
                os.kill(self._process, signal.SIGKILL)
            self._pool.shutdown(wait=False, cancel_futures=True)
            raise

    def close(self) -> None:
        """End the process, once it has answered."""
        self._pool.shutdown()


@contextmanager
def _mask_kept() -> Iterator[None]:
    """Leave the signals that this thread does not take as they are: the process with which
    `multiprocessing` keeps track of resources unblocks SIGINT when it starts, which `launcher`
    wants to arrive in another thread."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_with(parent: int) -> None:
    """Let this process be killed when the one that started it, of this number, has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        os._exit(1)


_object: Callable[[], Any]


def _begin(parent: int, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The first thing in the process. What it raised would only be logged, so that the object is
    made by the first call."""
    global _object
    die_with(parent)
    # Libraries print there when they are imported.
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _object = functools.cache(functools.partial(make, *arguments))


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_object(), name)(*arguments)
