"""Services that are told of a run: what they are told, and that nothing they do harms it."""

import importlib
import inspect
import math
import os
import signal
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hooks.types import Dist
from launcher import tracking
from launcher.rundir import RunDir
from launcher.sections import TrackingSection
from launcher.tracking import Occasion, Trackers
from launcher.tracking.background import Background, TooSlowError
from tests.event_files import events, scalars


@pytest.fixture
def occasion(tmp_path):
    def make(step=0, offline=False):
        return Occasion(
            tmp_path, "fences", "first", "r" * 21, step, offline, {"train": {"seed": 1}}
        )

    return make


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "grid.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    return path


class Recorder:
    def __init__(self, fails_at=None):
        self.calls = []
        self.fails_at = fails_at

    def _note(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name == self.fails_at:
            raise ConnectionError("the network\nis down")

    def log(self, step, figures):
        self._note("log", step, figures)

    def images(self, step, images):
        self._note("images", step, images)

    def close(self, failed):
        self._note("close", failed)


@pytest.fixture
def recorders():
    return {"tensorboard": Recorder(), "wandb": Recorder()}


@pytest.fixture
def said():
    return []


@pytest.fixture
def trackers(occasion, recorders, said):
    return Trackers(
        recorders, occasion(), said.append, lambda name: lambda occasion: recorders[name]
    )


def test_all_are_told_and_closed(trackers, recorders):
    with trackers:
        trackers.log(1, {"train/loss": np.float32(0.5), "train/skipped": False})
        trackers.images(1, {"grid": "grid.png"})
    expected = [
        ("log", 1, {"train/loss": 0.5, "train/skipped": 0.0}),
        ("images", 1, {"grid": "grid.png"}),
        ("close", False),
    ]
    assert [recorder.calls for recorder in recorders.values()] == [expected, expected]


def test_what_is_not_finite_is_left_out(trackers, recorders):
    with trackers:
        trackers.log(1, {"a": math.nan, "b": math.inf, "c": 2})
    assert recorders["wandb"].calls[0] == ("log", 1, {"c": 2.0})


def test_a_run_that_failed_is_closed_as_such(trackers, recorders):
    with pytest.raises(KeyboardInterrupt), trackers:
        raise KeyboardInterrupt
    assert recorders["wandb"].calls == [("close", True)]


@pytest.mark.parametrize("where", ["log", "images", "close"])
def test_one_that_raises_is_warned_of_once_and_left_out(trackers, recorders, said, where):
    recorders["wandb"].fails_at = where
    with trackers:
        for step in (1, 2, 3):
            trackers.log(step, {"a": 1})
            trackers.images(step, {})
    assert [name for name, *_ in recorders["tensorboard"].calls] == [
        *["log", "images"] * 3,
        "close",
    ]
    assert [name for name, *_ in recorders["wandb"].calls].count(where) == 1
    assert said == [
        "warning: wandb failed and is left out from here on (ConnectionError: the network is "
        "down). Training goes on; metrics.jsonl has everything"
    ]


def test_one_that_cannot_be_opened(occasion, said):
    def opener(name):
        def fail(occasion):
            raise RuntimeError("not logged in")

        return fail

    with Trackers(["swanlab"], occasion(), said.append, opener) as trackers:
        trackers.log(1, {"a": 1})
    (line,) = said
    assert "swanlab failed" in line and "not logged in" in line


def test_a_client_that_wants_to_end_the_process_is_left_out(trackers, recorders, said):
    def leave(step, figures):
        raise SystemExit(1)

    recorders["wandb"].log = leave
    with trackers:
        trackers.log(1, {"a": 1})
    assert recorders["tensorboard"].calls == [("log", 1, {"a": 1.0}), ("close", False)]
    (line,) = said
    assert line.startswith("warning: wandb failed") and "SystemExit(1)" in line


# -- A service that hangs ----------------------------------------------------------------------


@pytest.fixture
def hangs():
    """Waits until the test is over."""
    over = threading.Event()
    yield lambda *_, **__: over.wait(60)
    over.set()


@pytest.fixture
def impatient(occasion, recorders, said):
    def make(**limits):
        def opener(name):
            return lambda occasion: recorders[name]

        return Trackers(recorders, occasion(), said.append, opener, **limits)

    return make


def test_no_step_waits_for_a_service_and_the_end_waits_only_so_long(
    impatient, recorders, said, hangs
):
    recorders["wandb"].log = hangs
    started = time.monotonic()
    with impatient(closing=0.3) as trackers:
        for step in range(100):
            trackers.log(step, {"a": 1})
        assert time.monotonic() - started < 0.3
    assert 0.3 <= time.monotonic() - started < 5
    assert len(recorders["tensorboard"].calls) == 101
    assert said == [
        "warning: wandb failed and is left out from here on (TooSlowError: no answer within 0 s). "
        "Training goes on; metrics.jsonl has everything"
    ]


def test_a_service_that_does_not_begin_is_left_out(occasion, said, hangs):
    with Trackers(["wandb"], occasion(), said.append, lambda name: hangs, opening=0.1) as trackers:
        trackers.log(1, {"a": 1})
    (line,) = said
    assert "wandb failed" in line and "no answer" in line


def test_nobody_answers_a_service_that_asks_for_a_login(occasion, said, monkeypatch):
    reader, writer = os.pipe()  # a terminal that nobody types at
    with os.fdopen(writer, "w"), os.fdopen(reader) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)

        def log_in(occasion):
            raise PermissionError(f"the key is {input()!r}")

        with Trackers(["wandb"], occasion(), said.append, lambda name: log_in, opening=5):
            assert sys.stdin is terminal
    (line,) = said
    assert "EOFError" in line


def test_what_waits_for_a_service_has_a_limit(hangs):
    made = Background("wandb", object, backlog=3)
    made.wait_made(5)
    taken = threading.Event()
    made.call(lambda _: taken.set() or hangs())
    assert taken.wait(5)
    calls = []
    for _ in range(3):
        made.call(calls.append)
    with pytest.raises(TooSlowError, match="3 messages have not been taken"):
        made.call(calls.append)
    assert calls == []


def test_ctrl_c_ends_the_wait(impatient, recorders, said, hangs):
    recorders["wandb"].close = hangs
    main = threading.main_thread().ident
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    # As Python has it in the foreground, whatever pytest was started by.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), impatient(closing=30):
            timer.start()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == []


def test_services_are_called_outside_of_the_main_thread(occasion, said):
    """So that they leave the signal handlers alone."""
    threads = []

    class Service(Recorder):
        def _note(self, name, *arguments):
            threads.append(threading.current_thread())

    def make(occasion):
        threads.append(threading.current_thread())
        return Service()

    with Trackers(["swanlab"], occasion(), said.append, lambda name: make) as trackers:
        trackers.log(1, {})
        trackers.images(1, {})
    assert len(threads) == 4 and set(threads) == {threads[0]}
    assert threads[0] is not threading.main_thread()


def test_a_run_is_known_by_one_name(tmp_path):
    identity = tracking.run_id(tmp_path)
    assert len(identity) == 21 and identity.isalnum() and identity == identity.lower()
    assert tracking.run_id(tmp_path) == identity
    (tmp_path / "tracking-id.txt").write_text("\n")  # of a disk that was full
    assert len(tracking.run_id(tmp_path)) == 21
    other = tmp_path / "other"
    other.mkdir()
    assert tracking.run_id(other) != identity


@pytest.mark.parametrize("is_main", [True, False])
def test_what_a_run_tells_of_itself(tmp_path, is_main):
    """The configuration's section, as the services get it; of several processes, one tells."""
    from launcher.pipeline import Training

    section = TrackingSection(report_to="tensorboard", tracker_run_name="mine", offline=True)
    training = Training(
        config=SimpleNamespace(tracking=section),
        hook=None,
        models=None,
        dataset=None,
        stage=None,
        encoded=None,
        schedule=None,
        dist=Dist(rank=0 if is_main else 1, world_size=2),
        run_dir=RunDir(tmp_path, is_main, []),
        console=SimpleNamespace(headline=print),
    )
    made = training._trackers(7, "train: {seed: 1}", "flux_fence")
    told = made._occasion
    assert made._names == (["tensorboard"] if is_main else [])
    assert (told.folder, told.project, told.name) == (tmp_path, "flux_fence", "mine")
    assert (told.step, told.offline, told.config) == (7, True, {"train": {"seed": 1}})
    assert len(told.run_id) == (21 if is_main else 0)


def test_what_is_not_installed_is_named(monkeypatch):
    assert tracking.not_installed(["tensorboard"]) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (of_wandb, of_swanlab) = tracking.not_installed(["wandb", "swanlab"])
    assert "`pip install wandb`" in of_wandb
    assert "`pip install --upgrade protobuf`" in of_swanlab


def test_a_folder_of_that_name_is_not_the_package(tmp_path, monkeypatch):
    """wandb makes one where it is used."""
    name = "wandb_that_nobody_has"
    monkeypatch.setitem(tracking.PACKAGES, "wandb", (name, "`pip install wandb`"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / name).mkdir()
    assert len(tracking.not_installed(["wandb"])) == 1
    (tmp_path / name / "__init__.py").touch()
    importlib.invalidate_caches()
    assert tracking.not_installed(["wandb"]) == []


def test_options_that_no_service_uses_are_named():
    (problem,) = TrackingSection(report_to="tensorboard", offline=True).problems()
    assert "only wandb and swanlab use" in problem
    assert list(TrackingSection(report_to=["wandb"], offline=True).problems()) == []
    (problem,) = TrackingSection(report_to=["wandb", "wandb"]).problems()
    assert "more than once" in problem


# -- TensorBoard: the files are read back ------------------------------------------------------


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path, occasion, said):
    with Trackers(["tensorboard"], occasion(), said.append) as trackers:
        for step in (1, 2, 3):
            trackers.log(step, {"train/loss": 1 / step})
    with Trackers(["tensorboard"], occasion(step=1), said.append) as trackers:
        for step in (2, 3, 4):
            trackers.log(step, {"train/loss": 10 / step})
    assert said == []
    assert scalars(tmp_path / "tensorboard") == {
        ("train/loss", 1): 1.0,
        ("train/loss", 2): 5.0,
        ("train/loss", 3): pytest.approx(10 / 3),
        ("train/loss", 4): 2.5,
    }


def test_tensorboard_shows_each_step_once_where_a_run_begins_again(tmp_path, occasion, said):
    for value in (1, 2):
        with Trackers(["tensorboard"], occasion(), said.append) as trackers:
            for step in (0, 1):
                trackers.log(step, {"a": value})
    assert said == []
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert scalars(tmp_path / "tensorboard") == {("a", 0): 2.0, ("a", 1): 2.0}


def test_tensorboard_has_images(tmp_path, occasion, said, picture):
    import io

    with Trackers(["tensorboard"], occasion(), said.append) as trackers:
        trackers.images(7, {"validation": picture})
    (event,) = [e for e in events(tmp_path / "tensorboard") if e.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag) == (7, "validation")
    shown = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(picture)))


# -- Stand-ins with the signatures of wandb 0.31 and swanlab 0.10 ------------------------------


@pytest.fixture
def wandb(monkeypatch):
    module = ModuleType("wandb")
    module.calls = []

    class Run:
        def log(self, data, step=None, commit=None):
            module.calls.append(("log", data, step))

        def finish(self, exit_code=None):
            module.calls.append(("finish", exit_code))

    def init(
        entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None,
        config=None, config_exclude_keys=None, config_include_keys=None, allow_val_change=None,
        group=None, job_type=None, mode=None, force=None, reinit=None, resume=None,
    ):  # fmt: skip
        given = {k: v for k, v in locals().items() if v is not None and k not in ("module", "Run")}
        module.calls.append(("init", given))
        return Run()

    module.init = init
    module.Image = lambda data_or_path, mode=None, caption=None: ("image", data_or_path)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.mark.parametrize("offline", [False, True])
def test_wandb(wandb, occasion, said, tmp_path, picture, offline):
    with Trackers(["wandb"], occasion(5, offline), said.append) as trackers:
        trackers.log(6, {"train/loss": 1})
        trackers.images(6, {"validation": picture})
    assert said == []
    assert wandb.calls == [
        (
            "init",
            {
                "project": "fences",
                "name": "first",
                "id": "r" * 21,
                "resume": "allow",
                "dir": str(tmp_path),
                "config": {"train": {"seed": 1}},
                "allow_val_change": True,
                **({"mode": "offline"} if offline else {}),
            },
        ),
        ("log", {"train/loss": 1.0}, 6),
        ("log", {"validation": ("image", str(picture))}, 6),
        ("finish", 0),
    ]


@pytest.fixture
def swanlab(monkeypatch):
    module = ModuleType("swanlab")
    module.calls = []
    module.init = lambda *, mode=None, project=None, id=None, resume=None, config=None, **others: (
        module.calls.append(
            ("init", {"mode": mode, "project": project, "id": id, "resume": resume} | others)
        )
    )
    module.log = lambda data, step=None: module.calls.append(("log", data, step))
    module.Image = lambda data_or_path, mode=None, caption=None: ("image", data_or_path)
    module.finish = lambda state="success", error=None: module.calls.append(
        ("finish", state, bool(error))
    )
    monkeypatch.setitem(sys.modules, "swanlab", module)
    return module


@pytest.mark.parametrize("offline", [False, True])
def test_swanlab(swanlab, occasion, said, tmp_path, picture, offline):
    with (
        pytest.raises(ZeroDivisionError),
        Trackers(["swanlab"], occasion(5, offline), said.append) as trackers,
    ):
        trackers.log(6, {"train/loss": 1})
        trackers.images(6, {"validation": picture})
        raise ZeroDivisionError
    assert said == []
    (_, given), *rest = swanlab.calls
    assert given == {
        "project": "fences",
        "experiment_name": "first",
        "logdir": str(tmp_path / "swanlog"),
        "mode": "offline" if offline else None,
        "id": "r" * 21,
        "resume": "allow",
    }
    assert rest == [
        ("log", {"train/loss": 1.0}, 6),
        ("log", {"validation": ("image", str(picture))}, 6),
        ("finish", "crashed", True),
    ]


def test_the_stand_ins_refuse_what_the_services_would(wandb):
    assert "mode" in inspect.signature(wandb.init).parameters
    with pytest.raises(TypeError):
        wandb.init(modus="offline")
