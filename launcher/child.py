"""Running a verb in a process of its own, as if it were this one.

What it prints goes where this process prints. Beside that it tells, through a pipe, what it is
working on, so that its end can be explained whatever it dies of; and what it found out.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from launcher.training.errors import UserError
from launcher.training.helper import WHO_KILLS, die_with

#: Exit codes of a process that Ctrl-C or SIGTERM has ended, as shells have them.
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)

_VARIABLE = "LAUNCHER_REPORT_TO"  # process and file descriptor of the pipe

#: How often to see whether a child has died, in seconds.
_INTERVAL = 0.2
#: How long a child may take to end after Ctrl-C, in seconds.
_PATIENCE = 10.0


class AlreadyReported(Exception):
    """A child failed and has told the user why.

    Attributes:
        exit_code: its exit code, which becomes this process's.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"a child process ended with exit code {exit_code}")
        self.exit_code = exit_code


def run(verb: str, arguments: Sequence[str], task: str, way_out: str) -> dict[str, Any]:
    """Run a verb of the launcher in a child process and wait for its end.

    Args:
        verb: its name.
        arguments: its arguments.
        task: what it does, for a message: `encodes the data set`.
        way_out: what the user can do if it was killed, in sentences.

    Returns:
        What it handed to `Parent.tell`, later values in the place of earlier ones.

    Raises:
        AlreadyReported: it ended by itself, with an error that it has shown.
        UserError: it was killed.
    """
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [*_launcher(), verb, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=[writer],
            env={**os.environ, _VARIABLE: f"{os.getpid()} {writer}"},
        )
    finally:
        os.close(writer)
    try:
        known = _listen(process, reader)
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        os.close(reader)
    doing = f" while it was at {known['at']}" if known.get("at") else ""
    if status < 0:
        cause = f"{_name(-status)}{doing}.{_guess(-status)}"
        raise UserError(f"the process that {task} was killed by {cause} {way_out}")
    if status in INTERRUPTED:  # and this process was not, or it would not be here
        cause = f"{known.get('signal', 'a signal')}{doing}."
        raise UserError(f"the process that {task} was ended by {cause} {way_out}")
    if status:
        raise AlreadyReported(status)
    return known


def foreground(command: Sequence[str], **options: Any) -> int:
    """Run a command that answers Ctrl-C by itself, and wait for its end, however long that takes.

    `subprocess.run` kills what has not ended a quarter of a second after Ctrl-C, in the middle of
    saving what it has trained.

    Args:
        command: of a process in this one's terminal, where Ctrl-C reaches both.
        options: of `subprocess.run`.

    Returns:
        Its exit code, as shells have it: 128 and a signal's number if that has ended it.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)  # what it runs has the default again
    try:
        status = subprocess.run(command, **options).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def _listen(process: subprocess.Popen[bytes], reader: int) -> dict[str, Any]:
    """What the child tells until it ends. A process that it forked may keep the pipe open after
    its death, so the end of the pipe is not waited for."""
    known: dict[str, Any] = {}
    rest = b""
    is_over = False
    while not is_over:
        # Whether it has ended, before the last look into the pipe.
        is_over = process.poll() is not None
        while select.select([reader], [], [], 0 if is_over else _INTERVAL)[0]:
            piece = os.read(reader, 1 << 16)
            if not piece:
                return known
            *lines, rest = (rest + piece).split(b"\n")  # a line without an end: it died meanwhile
            for line in lines:
                known.update(json.loads(line))
    return known


def _launcher() -> list[str]:
    """The command line of the launcher, with the modules that this process would import; `-m` would
    put the working directory first, with whatever lies there under the name of a package."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from launcher.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C reaches all processes of a terminal, but not if it was sent to this one alone."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _guess(number: int) -> str:
    if number == signal.SIGKILL:
        return f" {WHO_KILLS}"
    return ""


class Parent:
    """The process that started this one as its child; see `parent`."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def tell(self, **values: Any) -> None:
        """Hand over values, which JSON can hold."""
        os.write(self._pipe, json.dumps(values).encode() + b"\n")


@functools.cache
def parent() -> Parent | None:
    """The launcher that runs this process as its child, None if there is none.

    This process then dies with the other one.
    """
    value = os.environ.pop(_VARIABLE, None)
    if value is None:
        return None
    pid, pipe = map(int, value.split())
    os.set_inheritable(pipe, False)
    die_with(pid)
    return Parent(pipe)
