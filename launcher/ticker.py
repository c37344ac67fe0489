"""Show how long something has been going on, from a process of its own.

Run as a program by `launcher.console`, not imported. MindSpore holds the interpreter lock for
long stretches while it compiles (measured on CPU: up to 11 s at a time, two thirds of an 80 s
compilation in all), so no thread of the compiling process could do this.

    ticker.py TEXT NOTE START SECONDS LIVE PARENT

Writes to standard output every SECONDS: TEXT, the time since START (of the monotonic clock) and,
if LIVE is 1, NOTE, over and over on one line. Ends when standard input ends. A byte there
before the end means that all went well; without it the parent died, and the last line stays.
"""

import contextlib
import os
import select
import signal
import sys
import time


def duration(seconds: float) -> str:
    """A time as a person would say it: `8 s`, `2 min 05 s`, `3 h 20 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _main(text: str, note: str, start: float, seconds: float, live: bool, parent: int) -> None:
    # Ctrl-C goes to all processes of the terminal. The parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shown = 0

    def show(line: str) -> None:
        os.write(1, os.fsencode(line))

    due = 0.0 if live else seconds
    while True:
        elapsed = time.monotonic() - start
        # A process forked from the parent may keep the pipe open after the parent's death.
        if os.getppid() != parent:
            break
        # Looked at every second, whatever the interval, for the sake of the check above.
        if select.select([0], [], [], max(0.0, min(due - elapsed, 1.0)))[0]:
            if os.read(0, 1) and live:
                show("\r" + " " * shown + "\r")
                return
            break
        elapsed = time.monotonic() - start
        if elapsed < due:
            continue
        passed = duration(elapsed)
        line = f"{text} ... {passed}"
        if live:
            try:
                width = os.get_terminal_size(1).columns or 80
            except OSError:
                width = 80
            # One column stays free: a full line would wrap, and "\r" would not get back.
            wordings = (f"{line} ({note})" if note else line, line, f"... {passed}", "")
            line = next(words for words in wordings if len(words) < width)
            show("\r" + line + " " * max(0, min(shown, width - 1) - len(line)))
            shown = len(line)
        else:
            show(line + "\n")
        due += seconds
    if live and shown:
        show("\n")


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # nobody is reading any more
        text, note, start, seconds, live, parent = sys.argv[1:]
        _main(text, note, float(start), float(seconds), live == "1", int(parent))
