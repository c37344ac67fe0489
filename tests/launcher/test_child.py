"""A verb in a process of its own. The programs here stand in for the launcher."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from launcher import child
from launcher.training.errors import UserError


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Let `child.run` start a program of the test's."""

    def write(source):
        path = tmp_path / "program.py"
        path.write_text("from launcher import child\nparent = child.parent()\n")
        with path.open("a") as file:
            file.write(textwrap.dedent(source))
        monkeypatch.setattr(child, "_launcher", lambda: [sys.executable, str(path)])

    return write


def run():
    return child.run("precompute", ["a", "b"], "encodes", "It goes on.")


def test_what_it_tells_is_returned(program):
    program("""
        import sys
        parent.tell(at="one", arguments=sys.argv[1:])
        parent.tell(at="two")
    """)
    assert run() == {"at": "two", "arguments": ["precompute", "a", "b"]}


def test_its_output_goes_where_ours_goes(program, capfd):
    program("import sys; print('out'); print('err', file=sys.stderr)")
    run()
    assert capfd.readouterr() == ("out\n", "err\n")


def test_an_error_that_it_has_shown_is_not_shown_again(program):
    program("raise SystemExit(2)")
    with pytest.raises(child.AlreadyReported) as caught:
        run()
    assert caught.value.exit_code == 2


def test_the_exit_code_of_such_an_error_becomes_the_launchers(program, capsys, monkeypatch):
    from launcher import cli

    program("raise SystemExit(7)")
    monkeypatch.setitem(cli.VERBS, "run", lambda _: run())
    assert cli.main([]) == 7
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "was killed by SIGKILL while it was at sample 3. Where nobody did that"),
        (signal.SIGSEGV, "was killed by SIGSEGV while it was at sample 3. It goes on."),
    ],
)
def test_one_that_is_killed_is_reported_with_what_it_was_at(program, number, words):
    program(f"""
        import os, resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        parent.tell(at="sample 3")
        os.kill(os.getpid(), {int(number)})
    """)
    with pytest.raises(UserError, match=words):
        run()


def test_half_a_message_of_one_that_was_killed_is_no_message(program):
    program("""
        import os
        parent.tell(at="sample 3")
        os.write(parent._pipe, b'{"at": "sam')
        os.kill(os.getpid(), 9)
    """)
    with pytest.raises(UserError, match="at sample 3"):
        run()


def test_an_interrupt_of_this_process_ends_it(program, monkeypatch, tmp_path):
    program(f"""
        import os, signal, time
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        parent.tell(at="sample 3")
        time.sleep(600)
    """)
    real = child.json.loads

    def interrupted(line):
        assert real(line) == {"at": "sample 3"}
        raise KeyboardInterrupt

    monkeypatch.setattr(child.json, "loads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_it_dies_with_this_process(tmp_path):
    code = textwrap.dedent(f"""
        import os, sys
        from launcher import child
        child._launcher = lambda: [sys.executable, "-c", (
            "import os, time; from launcher import child; p = child.parent();"
            "open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid()));"
            "p.tell(at='x'); time.sleep(600)")]
        child.json.loads = lambda line: os.kill(os.getpid(), 9)
        child.run("precompute", [], "", "")
    """)
    process = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert process.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_a_parent_there_is_none(monkeypatch):
    monkeypatch.delenv("LAUNCHER_REPORT_TO", raising=False)
    child.parent.cache_clear()
    assert child.parent() is None


def test_the_modules_of_the_working_directory_are_not_its_own(tmp_path):
    (tmp_path / "datasets.py").write_text("raise SystemExit('the wrong one')")
    code = f"import os; from launcher import child; os.chdir({str(tmp_path)!r}); "
    code += "child.run('recipes', [], '', '')"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert "flux_controlnet" in process.stdout


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_is_running_tells():
    assert is_running(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_a_signal_of_its_own_ended_is_reported_too(program, number):
    program(f"""
        import os
        from launcher.interrupt import interruptible
        from launcher.cli import main
        import launcher.cli
        def verb(_):
            with interruptible(lambda: None):
                parent.tell(at="sample 3")
                os.kill(os.getpid(), {int(number)})
                for _ in range(1000):
                    pass
        launcher.cli.VERBS["precompute"] = verb
        raise SystemExit(main(["precompute"]))
    """)
    words = f"was ended by {signal.Signals(number).name} while it was at sample 3. It goes on."
    with pytest.raises(UserError, match=words):
        run()


def test_a_process_that_it_forked_and_that_lives_on_is_not_waited_for(program, tmp_path):
    program(f"""
        import os, time
        parent.tell(at="sample 3")
        if (pid := os.fork()) == 0:
            time.sleep(600)
        open({str(tmp_path / "pid")!r}, "w").write(str(pid))
        os.kill(os.getpid(), 9)
    """)
    try:
        with pytest.raises(UserError, match="SIGKILL while it was at sample 3"):
            run()
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_in_the_foreground_a_command_answers_ctrl_c_by_itself(tmp_path):
    """It takes a second for that, and is not killed meanwhile; the caller lives on."""
    (tmp_path / "command.py").write_text(
        textwrap.dedent("""
            import signal, sys, time

            def save(*_):
                time.sleep(1)
                print("saved", flush=True)
                sys.exit(130)

            signal.signal(signal.SIGINT, save)
            print("ready", flush=True)
            time.sleep(60)
        """)
    )
    caller = textwrap.dedent("""
        import signal, sys
        from launcher import child

        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("ended with", child.foreground([sys.executable, "command.py"]), flush=True)
        print("killed by", child.foreground(["sh", "-c", "kill -9 $$"]) - 128)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", caller],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate(timeout=30)
    assert said.splitlines() == ["saved", "ended with 130", "killed by 9"]
