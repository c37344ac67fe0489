"""Ctrl-C: an exception where Python can take it, the end on the spot where it cannot."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from launcher.interrupt import deferred, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_raise_keyboard_interrupt(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: pytest.fail("not needed")):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_disturb_the_way_out():
    with interruptible(lambda: None):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_within_the_compiler_the_process_cleans_up_and_ends(tmp_path):
    mark = tmp_path / "config.yaml"
    mark.touch()
    program = f"""
        import os, pathlib, signal
        from launcher.interrupt import interruptible

        # A function of the name and module of MindSpore's compiler that calls Python.
        scope = {{"__name__": "mindspore.graph.api"}}
        exec("def compile(callback):\\n    callback()", scope)

        with interruptible(pathlib.Path({str(mark)!r}).unlink):
            try:
                scope["compile"](lambda: os.kill(os.getpid(), signal.SIGINT))
            finally:
                print("an exception went through the compiler")
        """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert process.returncode == 130
    assert (process.stdout, process.stderr) == ("", "launcher: interrupted\n")
    assert not mark.exists()


def test_deferred_signals_arrive_at_the_end_of_the_block():
    reached = False
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: None), deferred():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
