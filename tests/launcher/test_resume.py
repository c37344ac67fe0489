"""From where a run is continued, and what it may not be continued with."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hooks.types import Dist
from launcher import resume
from launcher.config import list_options
from launcher.console import Console
from launcher.rundir import RunDir
from launcher.sections import SECTIONS
from launcher.start import EXPORTED, Start
from launcher.training import checkpoint
from launcher.training.errors import UserError

CONFIG = """\
recipe: fence
train:
  output_dir: {}
  learning_rate: 0.001
  train_batch_size: 4
"""
#: Options of a recipe.
MORE = """\
model:
  rank: 4
  path: a
"""


def options():
    return [
        *list_options(SECTIONS),
        SimpleNamespace(section="model", name="rank", default=4, resume="fixed"),
        SimpleNamespace(section="model", name="path", default=None, resume="content"),
    ]


def write_run(folder, steps=(), **about):
    """A run that has these checkpoints and is not going on any more."""
    text = CONFIG.format(folder) + MORE
    with RunDir.claim(folder, text) as run:
        for step in range(1, max(steps, default=0) + 1):
            run.append("metrics.jsonl", {"step": step})
            if step in steps:
                checkpoint.write(
                    folder,
                    step,
                    {"w": np.zeros(2, np.float32)},
                    {"logs": run.logs.sizes(), **about},
                    lambda work: (work / "config.yaml").write_text(text),
                )
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", (2, 4))


@pytest.fixture
def find(tmp_path):
    """`resume.find`, and what was said; the folders that it took are given back."""
    said, found = [], []

    def call(asked, output_dir):
        found.append(resume.find(str(asked), str(output_dir), said.append))
        return found[-1]

    call.said = said
    yield call
    for origin in found:
        if origin is not None and origin.run_dir is not None:
            origin.run_dir.close()


def test_latest_is_the_newest_of_the_runs_own(find, run):
    origin = find("latest", run)
    assert (origin.step, origin.folder) == (4, run)
    assert origin.run_dir is not None
    assert find.said == []


def test_latest_begins_a_run_where_there_is_none(find, tmp_path):
    assert find("latest", tmp_path / "new") is None
    assert find.said == [f"there is no run in {tmp_path / 'new'} yet: this is a new one"]


def test_a_run_without_checkpoint_begins_again_in_its_folder(find, tmp_path):
    folder = write_run(tmp_path / "early")
    origin = find("latest", folder)
    assert (origin.step, origin.checkpoint) == (0, None)
    assert origin.run_dir is not None


def test_but_not_in_another(find, tmp_path):
    folder = write_run(tmp_path / "early")
    with pytest.raises(UserError, match=r"has no checkpoint to go on from. Leave out --resume"):
        find(folder, tmp_path / "other")


def test_an_earlier_checkpoint_goes_on_in_another_folder(find, run, tmp_path):
    origin = find(run / "checkpoint-2", tmp_path / "other")
    assert (origin.step, origin.run_dir) == (2, None)


def test_and_in_its_own_only_without_later_ones(find, run):
    with pytest.raises(UserError, match=r"checkpoints after checkpoint-2 \(of step 4\)"):
        find(run / "checkpoint-2", run)


def test_a_damaged_newest_falls_back_and_says_so(find, run):
    (run / "checkpoint-4" / "state.safetensors").unlink()
    origin = find("latest", run)
    assert origin.step == 2
    (said,) = find.said
    assert "checkpoint-4" in said and "Going on from checkpoint-2" in said


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\0"])
def test_a_configuration_that_is_damaged(find, tmp_path, text):
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"(?s)config.yaml (holds no|cannot be read).* has a copy"):
        changes(find, folder, CONFIG.format(folder))
    with pytest.raises(UserError, match=r"(?s)config.yaml (holds no|cannot be read).* has a copy"):
        resume.with_its_configuration(str(folder), None, [], [])


@pytest.mark.parametrize("asked", ["latest", "folder"])
def test_checkpoints_without_a_configuration_are_no_new_run(find, run, asked):
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"has checkpoints and no config.yaml. Every checkpoint"):
        find(run if asked == "folder" else asked, run)
    with pytest.raises(UserError, match=r"has checkpoints and no config.yaml. Every checkpoint"):
        resume.with_its_configuration(str(run), None, [], [])


def test_a_damaged_one_that_was_named_is_refused(find, run):
    (run / "checkpoint-4" / "state.safetensors").unlink()
    with pytest.raises(UserError, match=r"checkpoint-4 is damaged: .*--resume "):
        find(run / "checkpoint-4", run)


def test_what_is_no_run(find, run, tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        find(tmp_path / "nowhere", run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither the folder of a run"):
        find(tmp_path / "empty", run)
    with pytest.raises(UserError, match="not the name of a folder"):
        find("", run)


def test_a_run_that_is_still_going_on(find, run):
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, pathlib\n"
            "from launcher.rundir import RunDir\n"
            "run = RunDir.reopen(pathlib.Path(sys.argv[1]))\n"
            "print('taken', flush=True)\n"
            "sys.stdin.read()",
            str(run),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout.readline() == b"taken\n"
    with pytest.raises(UserError, match=r"still going on. Wait for its end, or stop it"):
        find("latest", run)
    holder.communicate(b"")
    assert find("latest", run).step == 4


def changes(find, run, config_text):
    origin = find("latest", run)
    return origin, list(resume.changes(origin, config_text, options()))


def test_what_has_not_changed_is_not_told(find, run):
    _, changed = changes(find, run, CONFIG.format(run) + MORE)
    assert changed == []


def test_each_change_has_its_effect(find, run):
    text = (
        (CONFIG.format("elsewhere") + MORE).replace("0.001", "0.01").replace("rank: 4", "rank: 8")
    )
    origin, changed = changes(find, run, text.replace("path: a", "path: b"))
    effects = {change.name: change.effect for change in changed}
    assert effects == {
        "train.output_dir": "free",
        "train.learning_rate": "continues",
        "model.rank": "fixed",
        "model.path": "content",
    }
    with pytest.raises(
        UserError, match=r"cannot be continued like this: model.rank was 4 and is 8"
    ):
        resume.refuse_fixed(origin, changed)
    said = resume.news(origin, changed, {"world_size": 1, "versions": {}})
    assert said == ["train.learning_rate was 0.001 and is 0.01", "model.path was a and is b"]


def test_another_recipe_is_refused(find, run):
    origin, changed = changes(find, run, (CONFIG.format(run) + MORE).replace("fence", "wall"))
    with pytest.raises(UserError, match="recipe was fence and is wall"):
        resume.refuse_fixed(origin, changed)


def test_other_variants_are_told(find, run):
    origin, changed = changes(find, run, "plugins: [mine.py]\n" + CONFIG.format(run) + MORE)
    resume.refuse_fixed(origin, changed)
    (said,) = resume.news(origin, changed, {"world_size": 1, "versions": {}})
    assert said.startswith("plugins was null and is ")


def test_an_option_that_the_run_did_not_know_had_its_default(find, run):
    _, changed = changes(find, run, CONFIG.format(run) + MORE + "runtime:\n  prefetch: 2\n")
    assert changed == []
    run_dir = write_run(run.parent / "second", (2,))
    _, changed = changes(find, run_dir, CONFIG.format(run_dir) + MORE + "runtime:\n  prefetch: 0\n")
    assert [(c.name, c.before, c.now) for c in changed] == [("runtime.prefetch", 2, 0)]


def test_versions_and_processes_that_differ_are_told(find, tmp_path):
    folder = write_run(tmp_path / "run", (1,), world_size=2, versions={"mindspore": "2.7.0"})
    origin = find("latest", folder)
    now = {"world_size": 1, "versions": {"mindspore": "2.10.0", "new": "1"}}
    assert resume.news(origin, [], now) == [
        "there were 2 processes and are 1, for as many samples a step",
        "mindspore was 2.7.0 and is 2.10.0: results may differ in their bits",
    ]


@pytest.mark.parametrize(
    "name, before, now, said",
    [
        ("global_batch", 8, 4, "with 8 samples a step, and this one has 4"),
        (
            "data",
            {"samples": 10, "encodings": "a"},
            {"samples": 9, "encodings": "b"},
            "another data set: of 10 samples, and this one has 9",
        ),
        (
            "data",
            {"samples": 10, "encodings": "a"},
            {"samples": 10, "encodings": "b"},
            "with other images, captions or encoders",
        ),
        (
            "networks",
            {"transformer": "a", "controlnet": "b"},
            {"transformer": "a", "controlnet": "c"},
            "another architecture: controlnet had parameters",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(name, before, now, said):
    (sentence,) = resume.differences({name: before, "seed": 0}, {name: now, "seed": 1})
    assert said in sentence
    assert list(resume.differences({name: before}, {name: before})) == []


def test_another_base_model_of_the_same_shapes_is_refused(tmp_path):
    """By the weights' content: the folder may have another name, and the same one other weights."""
    from launcher.training import weights

    def cell(file, trained):
        made = SimpleNamespace(get_parameters=lambda: [SimpleNamespace(requires_grad=trained)])
        weights.defer(made, weights.Origin((file,), {}), lambda: None)
        return made

    (tmp_path / "a").mkdir()
    file, copy = tmp_path / "model.safetensors", tmp_path / "a" / "copy.safetensors"
    file.write_bytes(b"one")
    copy.write_bytes(b"one")

    def note(file):
        cells = {"transformer": cell(file, False), "controlnet": cell(file, True)}
        return resume.of_frozen(SimpleNamespace(cells=lambda: cells), tmp_path / "memory")

    before = note(file)
    assert list(before) == ["transformer"]
    assert list(resume.differences({"frozen": before}, {"frozen": note(copy)})) == []
    file.write_bytes(b"two")
    (sentence,) = resume.differences({"frozen": before}, {"frozen": note(file)})
    assert "with another base model: transformer had other weights" in sentence


def test_the_batch_may_be_split_over_other_processes():
    before = resume.notes("fence", 0, Dist(), 8)
    now = resume.notes("fence", 0, Dist(0, 2), 8)
    assert list(resume.differences(before, now)) == []


def test_the_runs_own_configuration_is_taken(run, tmp_path):
    expected = ([str(run / "config.yaml")], ["seed=1", f"train.output_dir={run}"])
    assert resume.with_its_configuration(str(run), None, [], ["seed=1"]) == expected
    own = str(run / "checkpoint-2" / "config.yaml")
    configs, settings = resume.with_its_configuration(
        str(run / "checkpoint-2"), None, [], ["output_dir=new"]
    )
    assert (configs, settings) == ([own], ["output_dir=new"])
    configs, settings = resume.with_its_configuration(
        "latest", None, [], [f"train.output_dir={run}"]
    )
    assert configs == [str(run / "config.yaml")]


def test_files_or_a_recipe_that_are_given_win(run):
    given = (["mine.yaml"], ["a=1"])
    assert resume.with_its_configuration("latest", None, *given) == given
    assert resume.with_its_configuration("latest", "fence", [], ["a=1"]) == ([], ["a=1"])


def test_latest_of_nothing():
    with pytest.raises(UserError, match=r"train.output_dir, which is not given"):
        resume.with_its_configuration("latest", None, [], [])


def test_a_folder_without_configuration(tmp_path):
    with pytest.raises(UserError, match=r"there is no run in .* to continue"):
        resume.with_its_configuration(str(tmp_path), None, [], [])


# -- Start: what becomes of the folder ---------------------------------------------------------


class Said(Console):
    """A console that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.lines, self.results = [], []

    def headline(self, text):
        self.lines.append(text)

    def result(self, text):
        self.results.append(text)


def start_of(find, run):
    console = Said()
    origin = find("latest", run)
    text = CONFIG.format(run) + MORE
    changed = list(resume.changes(origin, text, options()))
    return Start(str(run), text, console, origin, changed), console


class Contents:
    """Stands for what a checkpoint is read into."""

    def read(self, found):
        self.step = found.step
        return 1


def go_on(start, contents=None):
    start.note(world_size=1, versions={})
    provenance = dict(
        command_line=["--resume", "latest"],
        seed=0,
        device="CPU",
        world_size=1,
        recipe="fence",
        plugins=[],
    )
    with start.open(Dist()) as run_dir:
        start.go_on(contents or Contents(), run_dir, provenance)


def test_going_on_removes_what_came_after_the_checkpoint(find, run):
    with RunDir.reopen(run) as crashed:
        crashed.append("metrics.jsonl", {"step": 5})
    (run / ".checkpoint-6.partial").mkdir()
    (run / EXPORTED).write_text("{}")
    start, console = start_of(find, run)
    assert (start.step, start.is_in_place) == (4, True)
    contents = Contents()
    go_on(start, contents)
    assert contents.step == 4
    assert [line for line in console.lines if "loaded 1 of 1 tensors" in line]
    assert (run / "metrics.jsonl").read_text().count("\n") == 4
    assert not (run / ".checkpoint-6.partial").exists()
    assert not (run / EXPORTED).exists()
    assert '"step": 4' in (run / "resumes.jsonl").read_text()


def test_a_damaged_checkpoint_is_none_of_the_course_that_goes_on(find, run):
    """It would count as the newest: the limit would keep it, and remove those that are whole."""
    (run / "checkpoint-4" / "state.safetensors").unlink()
    start, console = start_of(find, run)
    go_on(start)
    assert checkpoint.steps_in(run) == [2]
    assert (run / "checkpoint-4.set-aside-1" / "manifest.json").is_file()
    assert any("checkpoint-4, from which the run does not go on" in line for line in console.lines)
    assert (run / "metrics.jsonl").read_text().count("\n") == 2


def test_steps_that_are_done_again_for_want_of_a_checkpoint_are_told(find, tmp_path):
    folder = write_run(tmp_path / "run")
    with RunDir.reopen(folder) as crashed:
        for step in (1, 2, 3):
            crashed.append("metrics.jsonl", {"step": step})
    start, console = start_of(find, folder)
    assert not start.is_over(9)
    go_on(start)
    assert "there is no checkpoint yet: 3 recorded steps are done again" in console.lines
    assert (folder / "metrics.jsonl").read_text() == ""


def test_a_log_that_does_not_fit_the_checkpoint_is_told_of(find, run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step"')
    start, console = start_of(find, run)
    go_on(start)
    assert (run / "metrics.jsonl").read_text().count("\n") == 2
    assert any(line.startswith("warning: ") and "metrics.jsonl" in line for line in console.lines)


def test_a_validation_that_is_owed_is_known(find, tmp_path):
    start, _ = start_of(find, write_run(tmp_path / "run", (2,), owes_validation=True))
    assert start.owes_validation
    start, _ = start_of(find, write_run(tmp_path / "other", (2,)))
    assert not start.owes_validation


def test_until_then_nothing_is_changed(find, run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    start, _ = start_of(find, run)
    with pytest.raises(UserError, match="another data set"):
        start._origin.about["data"] = {"samples": 1, "encodings": ""}
        start.note(data={"samples": 2, "encodings": ""})
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_is_complete_is_not_touched(find, run):
    (run / EXPORTED).write_text('{"step": 4, "files": ["net/weights"]}')
    start, console = start_of(find, run)
    assert start.is_over(4)
    assert console.results == [str(run / "net/weights")]
    assert not start.is_over(5)  # it has been given more steps


def test_a_complete_run_without_checkpoint_is_not_begun_anew(find, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / EXPORTED).write_text('{"step": 4, "files": ["net/weights"]}')
    start, _ = start_of(find, folder)
    assert start.is_over(4)
    with pytest.raises(UserError, match="is complete, of 4 steps, and has no checkpoint"):
        start.is_over(9)


@pytest.mark.parametrize("text", ["", "[]", '{"step": 4}', "{"])
def test_a_damaged_note_of_what_was_exported(find, run, text):
    (run / EXPORTED).write_text(text)
    start, _ = start_of(find, run)
    with pytest.raises(UserError, match=r"exported.json does not say .* or remove it"):
        start.is_over(4)


def test_weights_are_not_replaced_by_a_run_that_begins_anew(find, tmp_path):
    folder = write_run(tmp_path / "run")
    start, _ = start_of(find, folder)
    for name in (".checkpoint-4.partial", "net"):  # the first was never finished
        assert not start.is_over(4)
        (folder / name).mkdir()
        (folder / name / "weights.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds weights that were exported and no checkpoint"):
        start.is_over(4)


def test_fewer_steps_than_are_done(find, run):
    start, _ = start_of(find, run)
    with pytest.raises(UserError, match="has done 4 steps, and this run is to have 3"):
        start.is_over(3)


def test_steps_are_done_and_the_export_is_not(find, run):
    start, _ = start_of(find, run)
    assert not start.is_over(4)


def test_a_second_provenance_does_not_replace_the_first(find, run):
    (run / "provenance.json").write_text('{"of": "the first"}')
    start, _ = start_of(find, run)
    go_on(start)
    assert (run / "provenance-1.json").read_text() == '{"of": "the first"}'
    assert os.path.getsize(run / "provenance.json") > 0
