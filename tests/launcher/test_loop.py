"""The loop with a step that needs no framework: signals, gradients that are not finite, a folder
that is removed. The state is a number, to which each step adds the number of its batch."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hooks.types import Batch, Models, StepOutput
from launcher.checkpointing import Contents, Saver
from launcher.console import Console
from launcher.interrupt import Interrupted
from launcher.loop import Loop
from launcher.rundir import RunDir
from launcher.tracking import Trackers
from launcher.training import checkpoint
from launcher.training.errors import UserError


class Value:
    def __init__(self, number):
        self.array = np.array([number], np.float64)

    def asnumpy(self):
        return self.array


class Said(Console):
    def __init__(self):
        super().__init__(enabled=False)
        self.lines = []

    def headline(self, text):
        self.lines.append(text)


class Hook:
    """Steps that report what `outputs` says of the tries of a step, by its number from 1."""

    def __init__(self, weight):
        self.weight = weight
        self.outputs = {}
        self.after = {}
        self.ended = []

    def train_step(self, state, batch):
        tries = self.outputs.get(state.step + 1, [])
        output = tries.pop(0) if tries else StepOutput(1.0, 0.5)
        if not output.skipped:
            self.weight.array += batch.micro_batches[0][0]
        return output

    def on_step_end(self, state, output):
        self.ended.append(state.step)
        self.after.get(state.step, lambda: None)()


def skipped(scale=None):
    metrics = {} if scale is None else {"loss_scale": scale}
    return StepOutput(math.inf, math.inf, skipped=True, metrics=metrics)


class Run:
    """Everything around a loop, and the loop."""

    def __init__(self, folder, total=6, start=0, **options):
        section = dict(on_nonfinite="stop", scaled=False, max_skipped=3, every=None, owes=False)
        section |= options
        self.validator = options.get("validator")
        self.weight = Value(0.0)
        self.hook = Hook(self.weight)
        self.scales = []
        self.console = Said()
        self.run_dir = RunDir.claim(folder, "a: 1")
        self.state = SimpleNamespace(
            step=start,
            epoch=0,
            max_train_steps=total,
            learning_rate=0.0,
            memory={},
            output_dir=self.run_dir.path,
            loss=None,
            models=Models(),
        )
        config = SimpleNamespace(
            train=SimpleNamespace(on_nonfinite=section["on_nonfinite"]),
            precision=SimpleNamespace(
                max_skipped_updates=section["max_skipped"], loss_scaling=section["scaled"]
            ),
        )
        self.saver = Saver(
            SimpleNamespace(
                checkpointing_steps=section["every"],
                every_minutes=None,
                checkpoints_total_limit=None,
            ),
            self.run_dir,
            Contents({"w": self.weight}, Models(), {}),
            lambda models, directory, values: [],
            {},
            "a: 1",
            start,
            lambda path: None,
            self.console.headline,
        )
        self.loop = Loop(
            config=config,
            hook=self.hook,
            state=self.state,
            schedule=SimpleNamespace(learning_rate=lambda step: 0.1),
            feed=SimpleNamespace(get=lambda step: (Batch([(step + 1,)], 4), 0.0)),
            graphs=None,
            report=None,
            run_dir=self.run_dir,
            saver=self.saver,
            trackers=Trackers([], None, self.console.headline),
            validator=self.validator,
            console=self.console,
            set_loss_scale=self.scales.append if section["scaled"] else None,
            config_text="a: 1",
            owes_validation=section["owes"],
        )

    def go(self):
        with self.run_dir, self.saver:
            self.loop.run()

    def metrics(self):
        return [json.loads(line) for line in open(self.run_dir.path / "metrics.jsonl")]

    def saved(self, step):
        found = checkpoint.read(self.run_dir.path / f"checkpoint-{step}")
        expected = {"w": checkpoint.info_of(self.weight.array)}
        return found, dict(checkpoint.load(found, expected))["w"].item()


@pytest.fixture(autouse=True)
def without_framework(monkeypatch):
    monkeypatch.setattr("launcher.training.device.memory_in_use", lambda: 1)


def send(number):
    return lambda: os.kill(os.getpid(), number)


def test_all_steps(tmp_path):
    run = Run(tmp_path / "run", total=4)
    run.go()
    assert run.hook.ended == [1, 2, 3, 4]
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    assert checkpoint.steps_in(run.run_dir.path) == []


def test_a_continued_run_does_the_rest(tmp_path):
    run = Run(tmp_path / "run", total=6, start=4)
    run.go()
    assert run.hook.ended == [5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_names_the_way_on(tmp_path, number, capfd):
    run = Run(tmp_path / "run")
    run.hook.after[3] = send(number)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        run.go()
    assert caught.value.signal == number
    assert "checkpoint-3" in caught.value.saved
    assert f"`launcher --resume {run.run_dir.path}`" in caught.value.saved
    found, weight = run.saved(3)
    assert weight == 1 + 2 + 3
    size = os.path.getsize(run.run_dir.path / "metrics.jsonl")
    assert found.about["logs"] == {"metrics.jsonl": size}
    assert "finishing the step, then saving" in capfd.readouterr().err
    assert signal.getsignal(number) is before


def test_a_signal_before_the_first_step_is_done_finishes_it(tmp_path):
    run = Run(tmp_path / "run")
    train_step = run.hook.train_step

    def signalled(state, batch):
        if state.step == 0:
            send(signal.SIGTERM)()
        return train_step(state, batch)

    run.hook.train_step = signalled
    with pytest.raises(Interrupted) as caught:
        run.go()
    assert "checkpoint-1" in caught.value.saved
    assert run.saved(1)[1] == 1


def test_sigusr1_saves_and_goes_on(tmp_path):
    run = Run(tmp_path / "run")
    run.hook.after[2] = send(signal.SIGUSR1)
    run.go()
    assert checkpoint.steps_in(run.run_dir.path) == [2]
    assert run.saved(2)[1] == 3
    assert len(run.metrics()) == 6


def test_checkpoints_while_the_steps_go_on(tmp_path):
    run = Run(tmp_path / "run", total=40, every=1)
    run.go()
    steps = checkpoint.steps_in(run.run_dir.path)
    assert steps[-1] == 40  # and as many of the others as there was time for
    for step in steps:
        found, weight = run.saved(step)
        assert weight == step * (step + 1) / 2
        lines = (run.run_dir.path / "metrics.jsonl").read_bytes()[
            : found.about["logs"]["metrics.jsonl"]
        ]
        assert lines.count(b"\n") == step and lines.endswith(b"\n")


def test_the_last_state_is_saved_so_that_more_steps_can_follow(tmp_path):
    run = Run(tmp_path / "run", total=6, every=500)
    run.go()
    assert checkpoint.steps_in(run.run_dir.path) == [6]
    assert run.saved(6)[1] == 21


def go_in_a_process(folder, prepare):
    """Run a loop in a process of its own, which a signal may end.

    Args:
        prepare: Python that changes `run`.
    """
    program = f"""
import signal, sys, time
from types import SimpleNamespace
sys.path.insert(0, {str(Path(__file__).parent)!r})
import launcher.training.device
launcher.training.device.memory_in_use = lambda: 1
from test_loop import Run, send
run = Run({str(folder)!r})
{prepare}
run.go()
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    process = go_in_a_process(
        tmp_path / "run",
        """
def hang():
    send(signal.SIGINT)()
    time.sleep(0.01)
    send(signal.SIGINT)()
    time.sleep(60)
run.hook.after[2] = hang
""",
    )
    assert process.returncode == 130, process.stderr
    assert "left at once: what was done since the last checkpoint is lost" in process.stderr
    assert "Traceback" not in process.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 2


@pytest.fixture
def diagnosis(monkeypatch):
    monkeypatch.setattr("launcher.training.nonfinite.diagnose", lambda *_: "net.layer made it.")


def test_gradients_that_are_not_finite_stop_the_run_with_its_state_saved(tmp_path, diagnosis):
    run = Run(tmp_path / "run")
    run.hook.outputs[3] = [skipped()]
    with pytest.raises(UserError) as caught:
        run.go()
    text = str(caught.value)
    assert "step 3 has no finite gradients. net.layer made it." in text
    assert "saved in" in text and "checkpoint-2" in text
    assert "train.on_nonfinite=skip" in text
    assert run.saved(2)[1] == 3
    last = run.metrics()[-1]
    assert (last["step"], last["skipped"], last["loss"]) == (3, True, None)
    # The line of the step that failed is not in what the checkpoint goes back to.
    found, _ = run.saved(2)
    lines = (run.run_dir.path / "metrics.jsonl").read_bytes()
    assert lines[: found.about["logs"]["metrics.jsonl"]].count(b"\n") == 2


def test_skip_leaves_the_batch_out_and_goes_on(tmp_path):
    run = Run(tmp_path / "run", on_nonfinite="skip")
    run.hook.outputs[3] = [skipped()]
    run.go()
    assert run.weight.array.item() == 1 + 2 + 4 + 5 + 6
    assert [line["skipped"] for line in run.metrics()] == [False, False, True, *[False] * 3]
    assert run.console.lines == ["step 3 has no finite gradients: its batch is left out"]
    assert run.hook.ended == [1, 2, 3, 4, 5, 6]


def test_skip_stops_after_too_many_in_a_row(tmp_path, diagnosis):
    run = Run(tmp_path / "run", on_nonfinite="skip", max_skipped=3)
    run.hook.outputs = {2: [skipped()], 4: [skipped()], 5: [skipped()], 6: [skipped()]}
    with pytest.raises(UserError, match="3 steps in a row have no finite gradients, up to step 6"):
        run.go()
    assert run.saved(5)[1] == 1 + 3


def test_a_scaled_loss_is_tried_again_and_the_try_is_no_step(tmp_path):
    run = Run(tmp_path / "run", scaled=True)
    run.hook.outputs[2] = [skipped(1024.0), skipped(512.0)]
    run.go()
    assert run.weight.array.item() == sum(range(1, 7))
    assert [line["step"] for line in run.metrics()] == [1, 2, 2, 2, 3, 4, 5, 6]
    assert run.scales == []


def test_a_scale_that_was_not_to_blame_is_given_back(tmp_path):
    run = Run(tmp_path / "run", scaled=True, on_nonfinite="skip", max_skipped=3)
    run.hook.outputs[2] = [skipped(1024.0), skipped(512.0), skipped(256.0)]
    run.go()
    assert run.scales == [1024.0]
    assert run.weight.array.item() == sum(range(1, 7)) - 2


def test_a_folder_that_is_removed_under_the_run(tmp_path):
    run = Run(tmp_path / "run")
    run.hook.after[3] = lambda: shutil.rmtree(run.run_dir.path)
    with pytest.raises(UserError) as caught:
        run.go()
    text = str(caught.value)
    assert "was removed or moved while the run was writing to it" in text
    # It is noticed when a line is to be written: that of step 4, which is done by then.
    assert "The state of step 4 is saved in" in text
    assert run.saved(4)[1] == 1 + 2 + 3 + 4
    assert (run.run_dir.path / "config.yaml").read_text() == "a: 1\n"


def test_a_folder_that_is_moved_and_cannot_be_made_again(tmp_path):
    parent = tmp_path / "parent"
    run = Run(parent / "run")

    def move():
        os.rename(run.run_dir.path, tmp_path / "moved")
        parent.rmdir()
        parent.write_text("a file now")

    run.hook.after[3] = move
    with pytest.raises(UserError, match="If it was moved, continue it where it is now"):
        run.go()
    assert (tmp_path / "moved" / "metrics.jsonl").read_text().count("\n") == 3


def test_a_folder_that_is_removed_while_a_checkpoint_is_written(tmp_path):
    run = Run(tmp_path / "run", every=2)
    written, removed = threading.Event(), threading.Event()

    def export(models, directory, values):
        written.set()
        assert removed.wait(10)
        (directory / "weights").write_text("")
        return []

    def remove():
        assert written.wait(10)
        shutil.rmtree(run.run_dir.path)
        removed.set()

    run.saver._export = export
    run.hook.after[3] = remove
    with pytest.raises(UserError, match="The state of step 4 is saved in"):
        run.go()
    assert run.saved(4)[1] == 1 + 2 + 3 + 4


def test_a_plugin_that_raises_is_a_bug_and_keeps_its_traceback(tmp_path):
    run = Run(tmp_path / "run")
    run.hook.after[2] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run.go()
    assert len(run.metrics()) == 2


class Validator:
    """Writes a line when it is asked to look."""

    def __init__(self, due, error=None):
        self.due, self.error = due, error
        self.seen = []

    def is_due(self, step, total):
        return step in self.due

    def run(self, state):
        self.seen.append((state.step, self.weight.array.item()))
        self.run_dir.append("validation/figures.jsonl", {"step": state.step})
        if self.error is not None:
            raise self.error


def validated(folder, due, error=None, **options):
    validator = Validator(due, error)
    run = Run(folder, validator=validator, **options)
    validator.weight, validator.run_dir = run.weight, run.run_dir
    return run


def test_validations_before_the_first_and_after_any_step(tmp_path):
    run = validated(tmp_path / "run", {0, 2, 6})
    run.go()
    assert run.validator.seen == [(0, 0.0), (2, 3.0), (6, 21.0)]


def test_a_continued_run_does_not_validate_again_where_it_begins(tmp_path):
    run = validated(tmp_path / "run", {2, 4}, start=2)
    run.go()
    assert [step for step, _ in run.validator.seen] == [4]


def test_a_checkpoint_knows_of_the_validation_of_its_step(tmp_path):
    run = validated(tmp_path / "run", {4}, every=4)
    run.go()
    found, _ = run.saved(4)
    sizes = found.about["logs"]
    assert sizes["validation/figures.jsonl"] == len('{"step": 4}\n')
    lines = (run.run_dir.path / "metrics.jsonl").read_bytes()[: sizes["metrics.jsonl"]]
    assert lines.count(b"\n") == 4


@pytest.mark.parametrize("when", ["before it", "while it looks", "when it has looked"])
def test_a_signal_goes_before_a_validation_which_is_then_owed(tmp_path, when, capfd):
    run = validated(tmp_path / "run", {3})
    look = run.validator.run

    def signalled(state):
        if when == "while it looks":
            send(signal.SIGTERM)()
        look(state)
        send(signal.SIGTERM)()

    run.validator.run = signalled
    if when == "before it":
        run.hook.after[3] = send(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        run.go()
    assert "checkpoint-3" in caught.value.saved
    assert len(run.validator.seen) == (when == "when it has looked")
    found, weight = run.saved(3)
    assert (weight, found.about["owes_validation"]) == (6, True)
    assert "validation/figures.jsonl" not in found.about["logs"]
    said = "finishing the step, then saving" if when == "before it" else "launcher: saving; Ctrl-C"
    assert said in capfd.readouterr().err


def test_a_validation_that_is_owed_is_done_where_the_run_goes_on(tmp_path):
    run = validated(tmp_path / "run", {2, 4}, start=2, owes=True, every=6)
    run.go()
    assert [step for step, _ in run.validator.seen] == [2, 4]
    assert not run.saved(6)[0].about["owes_validation"]


def test_and_only_if_it_still_is_due(tmp_path):
    run = validated(tmp_path / "run", {4}, start=2, owes=True, every=3)
    run.go()
    assert [step for step, _ in run.validator.seen] == [4]
    assert not run.saved(6)[0].about["owes_validation"]


@pytest.mark.parametrize("every", [None, 4])
def test_a_signal_when_all_steps_are_done(tmp_path, every):
    run = Run(tmp_path / "run", total=6, every=every)
    wait, signals = run.saver.wait, iter([signal.SIGTERM])

    def signalled():
        if run.state.step == 6:
            for number in signals:
                send(number)()
        wait()

    run.saver.wait = signalled
    with pytest.raises(Interrupted) as caught:
        run.go()
    assert "checkpoint-6" in caught.value.saved
    assert run.saved(6)[1] == 21


def test_a_validation_that_cannot_be_done_loses_no_step(tmp_path):
    run = validated(tmp_path / "run", {3}, UserError("The picture is gone."))
    with pytest.raises(UserError, match=r"The picture is gone. Apart from that, the run is saved"):
        run.go()
    found, weight = run.saved(3)
    assert weight == 6
    # Done again when the run goes on: the line that was written does not count.
    assert found.about["owes_validation"]
    assert "validation/figures.jsonl" not in found.about["logs"]
    lines = (run.run_dir.path / "metrics.jsonl").read_bytes()
    assert lines[: found.about["logs"]["metrics.jsonl"]].count(b"\n") == 3


@pytest.mark.parametrize("where", ["validation", "on_step_end"])
def test_a_mistake_in_a_plugin_after_a_step_loses_no_step(tmp_path, where):
    run = validated(tmp_path / "run", {3}, ValueError("bug") if where == "validation" else None)
    if where == "on_step_end":
        run.hook.after[3] = lambda: 1 / 0
    with pytest.raises(ValueError if where == "validation" else ZeroDivisionError):
        run.go()
    (said,) = run.console.lines
    assert "failed after step 3; the run is saved up to" in said and "--resume" in said
    found, weight = run.saved(3)
    assert weight == 6
    lines = (run.run_dir.path / "metrics.jsonl").read_bytes()
    assert lines[: found.about["logs"]["metrics.jsonl"]].count(b"\n") == 3


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_file_of_the_run_that_cannot_be_written_is_no_bug(tmp_path, place):
    run = validated(tmp_path / "run", {3})
    inside = str(run.run_dir.path / "validation")

    def fail(state):
        raise PermissionError(13, "Permission denied", inside if place == "inside" else "/x")

    run.validator.run = fail
    with pytest.raises(UserError if place == "inside" else PermissionError) as caught:
        run.go()
    text = str(caught.value) if place == "inside" else run.console.lines[0]
    assert "the run is saved up to" in text and (place != "inside" or inside in text)
    assert run.saved(3)[1] == 6


def test_a_service_that_fails_costs_no_step(tmp_path):
    class Service:
        def log(self, step, figures):
            raise ConnectionError("the network is down")

        def close(self, failed):
            pass

    run = Run(tmp_path / "run")
    trackers = Trackers(["wandb"], None, run.console.headline, lambda name: lambda _: Service())
    run.loop.trackers = trackers
    with trackers:
        run.go()
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 5, 6]
    (line,) = run.console.lines
    assert "wandb failed and is left out" in line


def test_a_folder_that_is_removed_while_a_validation_writes_images(tmp_path):
    run = validated(tmp_path / "run", {3})

    def write(state):
        shutil.rmtree(run.run_dir.path)
        (run.run_dir.path / "validation").mkdir()

    run.validator.run = write
    with pytest.raises(UserError, match=r"was removed or moved .*The state of step 3 is saved in"):
        run.go()
    assert run.saved(3)[1] == 6


def test_a_disk_that_is_full_while_a_signal_ends_a_compilation(tmp_path):
    run = Run(tmp_path / "run")

    def write_held():
        raise OSError(28, "No space left on device")

    run.saver.write_held = write_held
    said = run.loop._save_while_compiling()
    assert "could not be saved (No space left on device)" in said and "--resume" in said


def test_a_step_without_enough_memory(tmp_path):
    run = Run(tmp_path / "run")
    train_step = run.hook.train_step

    def exhausted(state, batch):
        if state.step == 3:
            raise RuntimeError("- Memory not enough:\nMemory isn't enough, alloc size: 17B.")
        return train_step(state, batch)

    run.hook.train_step = exhausted
    with pytest.raises(
        UserError, match=r"for a training step: Memory .*17B\. .*by --resume latest"
    ):
        run.go()


def test_a_folder_that_is_removed_before_the_first_step(tmp_path):
    run = validated(tmp_path / "run", {0})
    look = run.validator.run

    def remove(state):
        shutil.rmtree(run.run_dir.path)
        look(state)

    run.validator.run = remove
    with pytest.raises(UserError, match=r"was removed or moved .* No step was done"):
        run.go()
    assert not run.run_dir.path.exists()


def test_mindspores_frame_on_the_stack_of_a_step_is_no_compilation(tmp_path):
    """`Cell.compile` is called at every step, and returns at once where there is a graph."""
    run = Run(tmp_path / "run")
    scope = {"__name__": "mindspore.nn.cell"}
    exec("def compile(callback):\n    callback()", scope)
    train_step = run.hook.train_step

    def step(state, batch):
        if state.step == 2:
            scope["compile"](send(signal.SIGTERM))
        return train_step(state, batch)

    run.hook.train_step = step
    with pytest.raises(Interrupted) as caught:
        run.go()
    assert "checkpoint-3" in caught.value.saved
    assert run.saved(3)[1] == 6


def test_a_signal_while_a_graph_is_compiled_writes_what_is_held(tmp_path):
    process = go_in_a_process(
        tmp_path / "run",
        """
def compile_for(batch):
    send(signal.SIGTERM)()
    raise AssertionError("the process should have ended")
run.loop.graphs = SimpleNamespace(
    are_there_for=lambda batch: batch.micro_batches != [(3,)], compile_for=compile_for
)
""",
    )
    assert process.returncode == 143, process.stderr
    assert "the run is saved up to" in process.stderr and "checkpoint-2" in process.stderr
    assert checkpoint.read(tmp_path / "run" / "checkpoint-2").step == 2
