"""`launcher report`: which page it writes, and what it refuses."""

import os
import subprocess
import sys

import pytest

from benchmarks.synthetic_run import make
from launcher import cli
from launcher.verbs.report import labels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the runs a/first, b/first and b/second."""
    for number, name in enumerate(("a/first", "b/first", "b/second")):
        make(tmp_path / name, 40, seed=number)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    def run_(*arguments):
        code = cli.main(["report", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_


def test_the_page_of_a_run_is_in_its_folder(run, folder):
    assert run("a/first") == (0, f"{folder}/a/first/report.html\n", "")
    text = (folder / "a/first/report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n<html") and "<h1>first</h1>" in text
    assert run("a/first/")[0] == 0  # once more: it is replaced


def test_that_of_several_is_here(run, folder):
    assert run("a/first", "b/first", "b/second") == (0, f"{folder}/report.html\n", "")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>3 runs</h1>" in text and "a/first" in text and "b/second" in text


def test_or_where_it_is_told_to_be(run, folder):
    assert run("a/first", "--output", "page.html") == (0, f"{folder}/page.html\n", "")
    assert run("--output", "both.html", "a/first", "b/first")[0] == 0
    assert (folder / "both.html").exists() and not (folder / "a/first/report.html").exists()
    assert [path for path in folder.iterdir() if "partial" in path.name] == []


def test_labels_tell_runs_apart(folder):
    names = ["a/first", "b/second"]
    assert labels([folder / name for name in names]) == ["first", "second"]
    names = ["a/first", "b/first", "b/second"]
    assert labels([folder / name for name in names]) == names


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "arguments are required: RUN"),
        (["none"], "/none does not exist. Give the folder of a run, its train.output_dir."),
        (["a"], "/a holds no run: there is no metrics.jsonl in it. Give the folder of a run"),
        (["a/first/controlnet"], "It is in the folder of one: give "),
        (["a/first/metrics.jsonl"], "is a file. Give the folder"),
        (["a/first", "./a/first/"], "./a/first/ is given twice."),
        (["a/first", "--output", "a"], "--output a is a folder. Name the file: --output a/report"),
        (["a/first", "--output", "a/first/metrics.jsonl"], "the page's name ends in .html"),
        (["a/first", "--output", "new/page.html"], "there is no folder new. Make it first."),
        (["a/first", "--outptu", "x.html"], "did you mean `--output`?"),
        (["a/first", "--output"], "expected one argument"),
    ],
)
def test_mistakes(run, folder, arguments, says):
    before = sorted(folder.rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_a_folder_that_cannot_be_written_to(run, small_disk):
    disk = small_disk(1 << 20)
    make(disk / "run", 10)
    small_disk.read_only()
    code, out, err = run(disk / "run")
    assert (code, out) == (2, "")
    assert "Read-only file system. Name another place: --output FILE." in err


def test_it_starts_without_mindspore(folder):
    code = (
        "import sys; from launcher.cli import main; assert main(['report', 'a/first']) == 0; "
        "print(sorted({'mindspore', 'mindone', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines() == [str(folder / "a/first/report.html"), "[]"]
