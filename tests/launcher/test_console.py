"""What the user sees: lines in a log, a bar on a terminal, the time while a graph compiles."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from launcher import console as console_module
from launcher.console import Console
from launcher.ticker import duration

REPOSITORY = Path(__file__).parents[2]

#: Keeps the interpreter lock, as MindSpore does while it compiles: no thread could run.
BUSY = """
import ctypes
def busy(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
"""


class Clock:
    """Stands in for the `time` module of the console."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    return clock


def environment(**more):
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", **more}
    variables.pop("TQDM_DISABLE", None)
    return variables


def start(program, **options):
    return subprocess.Popen(
        [sys.executable, "-c", "from launcher.console import Console\n" + BUSY + program],
        env=environment(),
        text=True,
        encoding="utf-8",
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options},
    )


def on_terminal(program, columns=80, interrupt_at=None, **variables):
    """All that a program writes to a terminal, and its exit code."""
    process, terminal = pty.fork()
    if process == 0:
        # A shell ignores it for what it starts in the background, and that is inherited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = "from launcher.console import Console\n" + BUSY + program
        os.execve(sys.executable, [sys.executable, "-c", code], environment(**variables))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    written = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
        if interrupt_at is not None and interrupt_at in written:
            os.write(terminal, b"\x03")
            interrupt_at = None
    os.close(terminal)
    return written.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def on_screen(written):
    """What remains to be seen of it."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        screen = ""
        for part in line.split("\r"):
            screen = part + screen[len(part) :]
        lines.append(screen.rstrip())
    return lines


def tickers_of(process):
    """Processes that show the time for a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(a.endswith(b"ticker.py") for a in arguments) and str(process).encode() in arguments:
            found.append(int(folder.name))
    return found


def wait_until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# Plain lines


def test_headlines_go_to_standard_error_and_results_to_standard_output(capsys):
    console = Console()
    console.headline("loading the transformer")
    console.result("runs/first/controlnet")
    assert capsys.readouterr() == ("runs/first/controlnet\n", "loading the transformer\n")


def test_a_log_has_the_first_step_and_the_last_and_some_in_between(clock):
    stream = io.StringIO()
    with Console(stream=stream).progress(1000) as progress:
        for step in range(1, 1001):
            clock.now += 0.2
            progress.update(step, loss=0.5 / step, lr=1e-5)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training: step 1/1000  loss 0.5  lr 1e-05  0.2 s/step  3 min 19 s left"
    assert lines[1].startswith("training: step 26/1000  loss 0.01923  lr 1e-05")
    assert lines[-1] == "training: step 1000/1000  loss 0.0005  lr 1e-05  0.2 s/step"
    # Every 5 s in the first minute, then every 30 s: 200 s in all.
    assert len(lines) == 1 + 11 + 5


def test_a_run_that_ends_early_says_how_far_it_got(clock):
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Console(stream=stream).progress(10) as progress:
        for step in range(1, 5):
            clock.now += 0.1
            progress.update(step, loss=1.0)
        raise RuntimeError
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["training: step 1/10", "training: step 4/10"]


def test_a_resumed_run_counts_on_but_times_only_what_it_did(clock):
    stream = io.StringIO()
    with Console(stream=stream).progress(300, initial=200) as progress:
        clock.now += 2
        progress.update(201)
    assert stream.getvalue() == "training: step 201/300  2 s/step  3 min 18 s left\n"


def test_the_time_of_the_compilation_is_not_in_the_rate(clock, monkeypatch):
    monkeypatch.setattr(Console, "_start_ticker", lambda *_: None)
    stream = io.StringIO()
    console = Console(stream=stream)
    with console.progress(11) as progress:
        with console.compiling():
            clock.now += 600
        progress.update(1, loss=1.0)
        clock.now += 6
        progress.update(2, loss=1.0)
    assert stream.getvalue().splitlines() == [
        "compiling the training step (first step only) ...",
        "compiled the training step in 10 min 00 s",
        "training: step 1/11  loss 1",
        "training: step 2/11  loss 1  6 s/step  54 s left",
    ]


def test_other_things_than_steps_can_be_counted():
    stream = io.StringIO()
    with Console(stream=stream).progress(64, what="encoding", unit="sample") as progress:
        progress.update(64)
    assert stream.getvalue().startswith("encoding: sample 64/64  ")


def test_a_loss_that_is_not_finite_is_shown_as_it_is():
    stream = io.StringIO()
    with Console(stream=stream).progress(1) as progress:
        progress.update(1, loss=float("nan"), grad_norm=float("inf"))
    assert "loss nan  grad_norm inf" in stream.getvalue()


def test_only_the_main_process_speaks(capfd):
    console = Console(enabled=False)
    console.headline("loading")
    console.result("done")
    with console.progress(2) as progress, console.compiling():
        progress.update(2, loss=1.0)
        assert tickers_of(os.getpid()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (12000, "3 h 20 min"),
    ],
)
def test_times_are_said_as_a_person_would(seconds, said):
    assert duration(seconds) == said


# Streams that cannot take everything


def test_what_the_stream_cannot_encode_is_replaced():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream=stream).headline("2 × 2 – ready")
    assert raw.getvalue() == b"2 ? 2 ? ready\n"


SPEAKING = """
console = Console()
console.headline("loading")
with console.progress(3) as progress:
    with console.compiling():
        pass
    for step in (1, 2, 3):
        progress.update(step, loss=1.0)
console.result("result")
open({path!r}, "w").close()
"""


@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe"])
def test_a_run_goes_on_when_its_output_goes_nowhere(tmp_path, where):
    if where == "/dev/full":
        target = os.open(where, os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    process = start(SPEAKING.format(path=str(tmp_path / "done")), stderr=target)
    os.close(target)
    assert process.communicate()[0] == "result\n"
    assert process.returncode == 0
    assert (tmp_path / "done").exists()


def test_a_run_goes_on_when_its_terminal_is_gone(tmp_path):
    leader, follower = pty.openpty()
    process = start(SPEAKING.format(path=str(tmp_path / "done")), stderr=follower)
    os.close(follower)
    os.close(leader)
    assert process.communicate()[0] == "result\n"
    assert (tmp_path / "done").exists()


# On a terminal

TRAINING = """
console = Console()
with console.progress(4) as progress:
    for step in (1, 2, 3, 4):
        progress.update(step, loss=1 / step, lr=1e-5)
        if step == 2:
            console.headline("checkpoint")
console.result("done")
"""


def test_a_bar_shows_loss_and_lr_and_makes_way_for_headlines():
    written, code = on_terminal(TRAINING)
    assert code == 0
    screen = on_screen(written)
    assert screen[0] == "checkpoint"
    assert re.fullmatch(r"training: 100%\|█+\| 4/4 \[.*loss=0.25, lr=1e-05\]", screen[1])
    assert screen[2:] == ["done", ""]


@pytest.mark.parametrize("columns", [0, 20, 40])
def test_no_line_is_wider_than_the_terminal(columns):
    written, code = on_terminal(TRAINING, columns)
    assert code == 0
    assert "4/4" in written or columns == 20
    assert max(len(part) for part in re.split(r"[\r\n]", written)) <= (columns or 80)


def test_a_terminal_that_cannot_go_back_gets_lines():
    written, _ = on_terminal(TRAINING, TERM="dumb")
    assert "training: step 1/4  loss 1  lr 1e-05" in written.splitlines()[0]
    assert "\r" not in written.replace("\r\n", "\n")


# While a graph compiles

COMPILING = """
import launcher.console, sys
launcher.console.COMPILING_INTERVAL = 0.5
console = Console()
with console.progress(2) as progress:
    with console.compiling():
        busy({seconds})
        {then}
    progress.update(1, loss=1.0)
"""


def test_the_time_is_shown_even_if_no_thread_can_run():
    process = start(COMPILING.format(seconds=1.8, then=""))
    lines = process.communicate()[0].splitlines()
    assert lines[0] == "compiling the training step (first step only) ..."
    assert lines[1] == "compiling the training step ... 0 s"
    assert lines[2] == "compiling the training step ... 1 s"
    assert lines[-2] == "compiled the training step in 1 s"
    assert lines[-1] == "training: step 1/2  loss 1"


def test_on_a_terminal_it_counts_on_one_line_which_then_goes():
    written, _ = on_terminal(COMPILING.format(seconds=2.3, then=""))
    for seconds in (0, 1):
        assert f"\rcompiling the training step ... {seconds} s (first step only)" in written
    screen = on_screen(written)
    assert screen[0] == "compiled the training step in 2 s"
    assert screen[1].startswith("training:  50%")


def test_what_is_said_meanwhile_stands_on_lines_of_its_own():
    then = "console.headline('-> train_step'); busy(1.2)"
    written, _ = on_terminal(COMPILING.format(seconds=1.2, then=then))
    screen = on_screen(written)
    assert screen[:2] == ["-> train_step", "compiled the training step in 2 s"]
    assert screen[2].startswith("training:  50%")


def test_without_a_note_there_are_no_brackets():
    program = "with Console().busy('encoding', 'encoded'): busy(1.2)"
    written, _ = on_terminal(program)
    assert "\rencoding ... 1 s" in written and "(" not in written


def test_on_a_narrow_terminal_the_time_is_what_stays():
    written, _ = on_terminal(COMPILING.format(seconds=0.5, then=""), columns=20)
    assert "\r... 0 s" in written
    written, _ = on_terminal(COMPILING.format(seconds=0.5, then=""), columns=40)
    assert "\rcompiling the training step ... 0 s\r" in written.replace(" " * 35, "")


def test_a_compilation_that_fails_is_not_said_to_be_done():
    written, code = on_terminal(COMPILING.format(seconds=0.2, then="raise ValueError('dtype')"))
    assert code == 1
    assert "compiled" not in written
    screen = on_screen(written)
    assert screen[0].startswith("training:   0%")
    assert screen[1] == "Traceback (most recent call last):"
    assert screen[-2] == "ValueError: dtype"


def test_ctrl_c_ends_both_processes_and_clears_the_line():
    program = COMPILING.format(seconds=0.1, then="import time; time.sleep(60)")
    program = f"import os\nprint('pid', os.getpid())\n{program}"
    written, code = on_terminal(program, interrupt_at=b"... 1 s")
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in written
    assert "compiling" not in "".join(on_screen(written))
    assert written.count("Traceback") == 1  # the other process says nothing
    assert tickers_of(written.split()[1]) == []


@pytest.mark.parametrize(
    "forked", ["", "os.fork() or (time.sleep(8), os._exit(0)); "], ids=["", "fork"]
)
def test_nothing_is_left_of_a_run_that_is_killed(forked):
    program = COMPILING.format(seconds=0.1, then=f"{forked}time.sleep(60)")
    process = start(f"import os, time\n{program}", stdout=subprocess.DEVNULL)
    wait_until(lambda: tickers_of(process.pid))
    time.sleep(0.5)  # it is up, and so is the forked child
    process.kill()
    process.wait()
    # A forked child keeps the pipe open; the end is noticed all the same.
    wait_until(lambda: tickers_of(process.pid) == [], seconds=4)


def test_no_process_is_left_after_the_block():
    stream = open(os.devnull, "w")  # noqa: SIM115
    with Console(stream=stream).compiling():
        # The kernel shows a new program's arguments a moment after it was started.
        wait_until(lambda: len(tickers_of(os.getpid())) == 1)
    assert tickers_of(os.getpid()) == []
    stream.close()


def test_without_a_second_process_the_first_still_says_what_it_does(monkeypatch):
    def no_more(*args, **kwargs):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_more)
    stream = io.StringIO()
    with Console(stream=stream).compiling("the sampler"):
        pass
    assert stream.getvalue().splitlines() == [
        "compiling the sampler (first step only) ...",
        "compiled the sampler in 0 s",
    ]
