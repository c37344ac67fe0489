"""A process beside this one: what it answers, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.training.errors import UserError
from launcher.training.helper import Helper

ROOT = Path(__file__).resolve().parents[3]


class Counter:
    """Remembers what it was given."""

    def __init__(self, start):
        self.total = start

    def add(self, number):
        self.total += number
        return self.total

    def process(self):
        return os.getpid()

    def fail(self):
        raise ValueError("no")

    def sleep(self, seconds):
        time.sleep(seconds)

    def handlers(self):
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def refuse(reason):
    raise UserError(reason)


@pytest.fixture
def helper():
    made = Helper(Counter, (10,), task="counts", way_out="Count by hand.")
    yield made
    made.close()


def test_one_object_answers_in_another_process(helper):
    assert [helper.call("add", 1), helper.call("add", 2)] == [11, 13]
    assert helper.call("process") != os.getpid()


def test_errors_arrive(helper):
    with pytest.raises(ValueError, match=r"^no$"):
        helper.call("fail")
    assert helper.call("add", 1) == 11
    made = Helper(refuse, ("not like this",), task="refuses", way_out="")
    with pytest.raises(UserError, match="not like this"):
        made.call("anything")
    made.close()


def test_ctrl_c_is_not_its_matter(helper):
    assert helper.call("handlers") == [signal.SIG_IGN, signal.SIG_IGN]


def test_signals_reach_the_thread_that_waits_for_them():
    """What `launcher.interrupt.listening` has set up; in a process of its own, since
    `multiprocessing` does this once."""
    program = (
        "import signal\n"
        "from launcher.training.helper import Helper\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "helper = Helper(dict, (), task='', way_out='')\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "SIGINT" in done.stdout


def test_a_wait_that_is_interrupted_ends_the_process(helper):
    class Left(BaseException):
        pass

    def leave(number, frame):
        raise Left

    helper.call("process")  # it has started
    before = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        started = time.monotonic()
        with pytest.raises(Left):
            helper.call("sleep", 60)
    finally:
        signal.signal(signal.SIGALRM, before)
    helper.close()  # as the interpreter does at its end
    assert time.monotonic() - started < 20


def test_its_death_is_explained(helper):
    os.kill(helper.call("process"), signal.SIGKILL)
    with pytest.raises(UserError, match=r"that counts was killed.*memory.*Count by hand\."):
        helper.call("add", 1)


def test_it_dies_with_its_parent(tmp_path):
    """Also when that is killed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from launcher.training.helper import Helper\n"
        "from tests.launcher.training.test_helper import Counter\n"
        "if __name__ == '__main__':\n"
        "    print(Helper(Counter, (0,), task='', way_out='').call('process'), flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}"):
            return
        time.sleep(0.05)
    raise AssertionError("it is still there")
