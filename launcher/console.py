"""What the user sees of a run: headlines, a progress bar, a word while the graph compiles.

Progress goes to standard error and results to standard output, so that results can be piped.
On a terminal there is a bar; anywhere else (a log file, a pipe, `TERM=dumb`) there are plain
lines, few enough to be read.

Output is never a reason to lose a run: when nobody reads it any more (a closed pipe, a terminal
that is gone, a full disk), it is dropped and the run goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from launcher.ticker import duration

#: Seconds between plain lines: often while the user is watching it start, then seldom.
PLAIN_INTERVAL = 5.0
PLAIN_INTERVAL_LATER = 30.0
LATER = 60.0
#: Seconds between plain lines while the graph compiles.
COMPILING_INTERVAL = 15.0


class Console:
    """The run's voice.

    Args:
        enabled: False on all processes of a run but the main one: they say nothing.
        stream: where progress goes; standard error unless a test wants to see it.
    """

    def __init__(self, enabled: bool = True, stream: TextIO | None = None) -> None:
        self.enabled = enabled
        self._out = _Stream(stream or sys.stderr)
        self._live = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._progress: Progress | None = None
        self._is_busy = False

    def headline(self, text: str) -> None:
        """Say what is going on now: `loading the transformer`. A line of its own."""
        if not self.enabled:
            return
        with self._bar_hidden():
            if self._live and self._is_busy:
                # The ticker's line, which it writes anew below.
                self._out.write("\r" + " " * ((self._out.columns() or 80) - 1) + "\r")
            self._out.line(text)

    def result(self, text: str) -> None:
        """Say what came of the run: the one thing that goes to standard output."""
        if not self.enabled:
            return
        with self._bar_hidden():
            _Stream(sys.stdout).line(text)

    def progress(
        self, total: int, initial: int = 0, *, what: str = "training", unit: str = "step"
    ) -> Progress:
        """Show how far something has got. Use it in a `with` block, or call `close`.

        Args:
            total: how many units there are.
            initial: how many are already done, as in a resumed run.
            what: `training`, `encoding`.
            unit: what is counted, in the singular.
        """
        self._progress = Progress(
            self._out if self.enabled else None, self._live, total, initial, what, unit
        )
        return self._progress

    @contextmanager
    def compiling(
        self, what: str = "the training step", note: str = "first step only"
    ) -> Iterator[None]:
        """Show the time that passes while a graph is compiled, and how long it took.

        Around the first call of a compiled cell. The time does not count in the progress bar's
        rate.
        """
        with self.busy(f"compiling {what}", f"compiled {what}", note):
            yield

    @contextmanager
    def busy(self, doing: str, done: str, note: str = "") -> Iterator[None]:
        """Show the time that passes while something goes on that cannot tell how far it is.

        A second process does the showing, see `launcher.ticker`; it ends with this block, or
        with this process, however that ends.

        Args:
            doing: `encoding 64 samples`.
            done: said with the time it took at the end: `encoded 64 samples`.
            note: stands in brackets behind `doing`.
        """
        start = time.monotonic()
        bar = self._progress
        if bar is not None:
            bar.pause()
        if not self.enabled:
            yield
            return
        with self._bar_hidden():
            if not self._live:
                self._out.line(f"{doing} ({note}) ..." if note else f"{doing} ...")
            ticker = self._start_ticker(doing, note, start)
            self._is_busy = True
            try:
                yield
            finally:
                self._is_busy = False
                _stop_ticker(ticker)
            self._out.line(f"{done} in {duration(time.monotonic() - start)}")

    def _start_ticker(self, text: str, note: str, start: float) -> subprocess.Popen[bytes] | None:
        """The process that shows the time, or None where there cannot be one."""
        try:
            # The text as bytes, in the encoding of the stream.
            arguments = [self._out.encode(part) for part in (text, note)]
            interval = 1.0 if self._live else COMPILING_INTERVAL
            return subprocess.Popen(
                # -I -S: no site-packages, no environment; it starts in some 15 ms.
                [
                    sys.executable, "-I", "-S", Path(__file__).with_name("ticker.py"), *arguments,
                    str(start), str(interval), "1" if self._live else "0", str(os.getpid()),
                ],
                stdin=subprocess.PIPE,
                stdout=self._out.fileno(),
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, ValueError):
            # No file behind the stream, or no room for one more process: then without it.
            if self._live:
                self._out.line(f"{text} ({note}) ..." if note else f"{text} ...")
            return None

    @contextmanager
    def _bar_hidden(self) -> Iterator[None]:
        """Take the bar off the terminal, if there is one, and put it back."""
        bar = self._progress
        if bar is None or self._is_busy:  # `busy` has hidden it
            yield
            return
        bar.hide()
        try:
            yield
        finally:
            bar.show()


class Progress:
    """How far something has got; see `Console.progress`."""

    def __init__(
        self, out: _Stream | None, live: bool, total: int, initial: int, what: str, unit: str
    ) -> None:
        self.total = total
        self.done = initial
        self._out = out
        self._what = what
        self._unit = unit
        self._bar: Any = None
        self._paused = False
        # For plain lines.
        self._timed_from = initial
        self._start = self._timed_since = time.monotonic()
        self._last_line: float | None = None
        self._unsaid = ""
        if live and out is not None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=initial, desc=what, unit=f" {unit}", file=out,
                # 0 columns is what terminals say that do not know.
                **({"dynamic_ncols": True} if out.columns() else {"ncols": 80}),
            )  # fmt: skip

    def update(self, done: int, **figures: float) -> None:
        """Show that `done` units are done, counted from the start of the run.

        Args:
            done: the total so far, not the increment.
            figures: shown beside it in this order, such as loss and lr.
        """
        advance, self.done = done - self.done, done
        if self._out is None:
            return
        if self._bar is not None:
            shown = ", ".join(f"{name}={value:.4g}" for name, value in figures.items())
            self._bar.set_postfix_str(shown, refresh=False)
            if self._paused:
                # Nothing of a compilation goes into the rate: neither its time nor its step.
                self._bar.n = self._bar.initial = self._bar.last_print_n = done
                self._bar.unpause()
                self._bar.refresh()
            else:
                self._bar.update(advance)
        else:
            if self._paused:
                self._timed_from, self._timed_since = done, time.monotonic()
            self._plain(figures)
        self._paused = False

    def pause(self) -> None:
        """Leave the time until the next `update`, and what that counts, out of the rate."""
        self._paused = True

    def hide(self) -> None:
        """Take the bar off the terminal, to write something else."""
        if self._bar is not None:
            self._bar.clear()

    def show(self) -> None:
        """Put the bar back."""
        if self._bar is not None and not self._bar.disable:
            self._bar.refresh()

    def close(self) -> None:
        """Leave the final state on the screen. May be called twice."""
        if self._bar is not None:
            self._bar.close()
        elif self._out is not None and self._unsaid:
            self._out.line(self._unsaid)
            self._unsaid = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _plain(self, figures: dict[str, float]) -> None:
        """A line for the first unit and the last, and for one every few seconds in between."""
        assert self._out is not None
        now = time.monotonic()
        interval = PLAIN_INTERVAL if now - self._start < LATER else PLAIN_INTERVAL_LATER
        shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        line = f"{self._what}: {self._unit} {self.done}/{self.total}{shown}"
        timed = self.done - self._timed_from
        if timed > 0:
            each = (now - self._timed_since) / timed
            line += f"  {each:.3g} s/{self._unit}"
            if self.done < self.total:
                line += f"  {duration(each * (self.total - self.done))} left"
        due = self._last_line is None or now - self._last_line >= interval
        if due or self.done >= self.total:
            self._out.line(line)
            self._last_line = now
            self._unsaid = ""
        else:
            self._unsaid = line


class _Stream:
    """A text stream that never raises: what cannot be encoded is replaced, what cannot be
    written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def encode(self, text: str) -> bytes:
        return text.encode(self.encoding, "replace")

    def line(self, text: str) -> None:
        self.write(text + "\n")
        self.flush()

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: closed
            self._stream.write(self.encode(text).decode(self.encoding))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()
        except ValueError:  # closed
            pass

    def _drop(self) -> None:
        """Send to nowhere what the stream still holds, and all that follows. Python would try
        again when it exits, fail again, and exit with code 120."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # closed
            return False

    def columns(self) -> int:
        """The terminal's width, 0 where it is not known."""
        try:
            return os.get_terminal_size(self.fileno()).columns
        except (OSError, ValueError):
            return 0

    def fileno(self) -> int:
        return self._stream.fileno()


def _stop_ticker(ticker: subprocess.Popen[bytes] | None) -> None:
    """Tell it that all went well, and wait until it has cleared its line."""
    if ticker is None:
        return
    assert ticker.stdin is not None
    try:
        ticker.stdin.write(b".")
        ticker.stdin.close()
    except OSError:  # it is gone already
        pass
    try:
        ticker.wait(timeout=5)
    except subprocess.TimeoutExpired:  # stuck writing to a terminal that is stopped
        ticker.kill()
        ticker.wait()
