"""What `--trace` shows, hook call by hook call."""

import re
import time

import pytest

from launcher import plugins
from launcher.plugin_checks import SPECS
from launcher.trace import PER_STEP, Trace

VARIANT = """
import time

from hooks import hookimpl


@hookimpl
def build_loss(config):
    time.sleep(0.02)
    return f"loss of {config}"


@hookimpl(wrapper=True)
def train_step(state):
    result = yield
    return result + 1


@hookimpl(specname="train_step")
def my_step(state):
    return state


@hookimpl
def configure_trainable(models):
    raise ZeroDivisionError
"""


@pytest.fixture
def traced(fence, write):
    """Hooks of the recipe `fence` with a variant, the trace, and its lines so far."""
    write("v.py", VARIANT)
    lines = []
    trace = Trace(lines.append)
    return plugins.load("fence", ["v.py"], trace).hook, trace, lines


def words(line):
    """A line without its figures."""
    return re.sub(r"[0-9.]+ (us|ms|s)\b", "TIME", " ".join(line.split()))


def test_a_call_is_shown_with_owner_and_time(traced):
    hook, _, lines = traced
    assert hook.build_loss(config=7, models=None) == "loss of 7"
    assert [words(line) for line in lines] == ["-> build_loss v.py:8", "<- build_loss TIME"]
    number, unit = lines[1].split()[-2:]
    assert unit == "ms" and 20 <= float(number) < 500


def test_the_owner_is_that_of_the_call(traced):
    hook, _, lines = traced
    hook.export_weights(config=None, models=None, directory=None, values=None)
    assert re.fullmatch(r"-> export_weights fence /.*/fence_plugin/recipe.py:\d+", words(lines[0]))


def test_what_tells_calls_apart_is_shown(traced):
    hook, _, lines = traced
    hook.build_models(config=None, stage="precompute")
    assert words(lines[0]).startswith("-> build_models(stage=precompute) fence")


def test_it_is_shown_as_it_happens(traced, monkeypatch):
    hook, _, lines = traced
    seen = []
    monkeypatch.setattr(time, "sleep", lambda seconds: seen.extend(lines))
    hook.build_loss(config=None, models=None)
    assert [words(line) for line in seen] == ["-> build_loss v.py:8"]


def test_what_a_wrapper_surrounds_is_indented(traced):
    hook, _, lines = traced
    assert hook.train_step(state=1, batch=None) == 2
    assert [(len(line) - len(line.lstrip()), words(line)) for line in lines] == [
        (0, "-> train_step (wrapper) v.py:14"),
        (3, "-> train_step v.py:20 (my_step)"),
        (3, "<- train_step TIME"),
        (0, "<- train_step (wrapper) TIME"),
    ]


def test_a_step_is_shown_once_and_counted(traced):
    hook, trace, lines = traced
    for state in range(5):
        assert hook.train_step(state=state, batch=None) == state + 1
    assert len(lines) == 4
    trace.close()
    assert [words(line) for line in lines[4:]] == [
        "train_step (wrapper) v.py:14: 5 calls, the first TIME, then TIME on average",
        "train_step v.py:20 (my_step): 5 calls, the first TIME, then TIME on average",
    ]
    trace.close()
    assert len(lines) == 6


def test_what_is_called_once_is_not_counted(traced):
    hook, trace, lines = traced
    hook.train_step(state=1, batch=None)
    hook.build_loss(config=None, models=None)
    hook.build_loss(config=None, models=None)
    assert len(lines) == 8
    trace.close()
    assert len(lines) == 8


def test_a_hook_without_implementation_is_shown(traced):
    hook, trace, lines = traced
    hook.on_train_start(state=1)
    for _ in range(3):
        hook.on_step_end(state=1, output=1)
    assert hook.check_config(config=1) == []
    trace.close()
    assert [words(line) for line in lines] == [
        "-> on_train_start nobody", "-> on_step_end nobody", "-> check_config nobody",
    ]  # fmt: skip


def test_a_failure_is_shown_and_passed_on(traced):
    hook, _, lines = traced
    with pytest.raises(ZeroDivisionError):
        hook.configure_trainable(config=None, models=None)
    assert words(lines[-1]) == "<- configure_trainable raised after TIME"
    hook.build_loss(config=None, models=None)
    assert lines[-1].startswith("<- build_loss")  # not indented


def test_a_step_that_fails_is_shown_though_it_is_not_the_first(fence, write):
    write("v.py", "from hooks import hookimpl\n@hookimpl\ndef train_step(state): return 1 / state")
    lines = []
    hook = plugins.load("fence", ["v.py"], Trace(lines.append)).hook
    hook.train_step(state=1, batch=None)
    with pytest.raises(ZeroDivisionError):
        hook.train_step(state=0, batch=None)
    assert words(lines[-1]) == "<- train_step raised after TIME"


def test_without_a_trace_the_plugins_own_functions_are_called(fence, write):
    write("v.py", VARIANT)
    loaded = plugins.load("fence", ["v.py"])
    for name in SPECS:
        for impl in getattr(loaded._manager.hook, name).get_hookimpls():
            assert not impl.function.__code__.co_filename.endswith("/trace.py")


def test_the_hooks_of_a_step_exist():
    assert set(PER_STEP) <= set(SPECS)
