"""`launcher data check`: what it asks the recipe, what it prints, how it ends."""

import json

import pytest

from launcher import cli

REPORT = """

from hooks import hookimpl
from launcher.training.errors import UserError


class Report:
    def __init__(self, inspection):
        self.inspection = inspection

    def as_json(self):
        i = self.inspection
        return {"full": i.full, "every": i.every, "tflops": i.tflops, "caption": "\\ud800é"}

    def text(self):
        some = "all" if self.inspection.every else "two"
        return f"{some} fences \\ud800é"

    def problems(self):
        return PROBLEMS


PROBLEMS = []


@hookimpl
def inspect_data(config, inspection):
    inspection.tell("painting", "fence", 0, 2)
    inspection.tell("painting", "fence", 2, 2)
    inspection.tell("drying", "board", 0, 1)
    inspection.tell("drying", "board", 1, 1)
    return Report(inspection)
"""


@pytest.fixture
def check(fence, write, monkeypatch, capsys):
    """Run `launcher data check --recipe fence ...`: exit code, output, errors."""
    from launcher import quiet

    monkeypatch.setattr(quiet, "install", lambda verbose: None)
    write("looks.py", REPORT)
    write("finds.py", REPORT.replace("= []", '= ["3 of 4 rows are rotten.", "And one is blue."]'))

    def run(*arguments):
        code = cli.main(
            ["data", "check", "--recipe", "fence", "train.output_dir=runs/a", *arguments]
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_recipe_that_does_not_look_tells_the_number_of_samples(check):
    code, out, _ = check()
    assert code == 0 and out.startswith("samples  1 ")
    assert json.loads(check("--json")[1]) == {"samples": 1}


def test_the_report_and_its_progress(check):
    code, out, err = check("-p", "looks.py")
    assert code == 0 and out == "two fences ?é\n"
    lines = [line for line in err.splitlines() if not line.startswith("note:")]
    assert [line.split("  ")[0] for line in lines] == ["painting: fence 2/2", "drying: board 1/1"]


def test_what_is_asked_for_reaches_the_recipe(check):
    _, out, _ = check("-p", "looks.py", "--json")
    assert json.loads(out) == {"full": False, "every": True, "tflops": None, "caption": "\ud800é"}
    _, out, _ = check("-p", "looks.py", "--json", "--full", "--tflops", "12.5")
    assert json.loads(out) | {"caption": ""} == {
        "full": True, "every": True, "tflops": 12.5, "caption": "",
    }  # fmt: skip


def test_problems_come_last_and_end_with_code_2(check):
    code, out, err = check("-p", "finds.py")
    assert code == 2 and out == "two fences ?é\n"
    assert err.endswith(
        "launcher: error: 3 of 4 rows are rotten.\nAnd one is blue.\n"
        "Mend or remove these rows; with --json, all of them are listed.\n"
    )
    code, out, err = check("-p", "finds.py", "--json")
    assert code == 2 and json.loads(out) and err.endswith("Mend or remove these rows.\n")


def test_data_of_another_plugin_than_the_report_is_told(check, write):
    write(
        "own_data.py",
        "from hooks import hookimpl\n\n@hookimpl\ndef build_dataset():\n    return 'ab'\n",
    )
    assert "note: a run gets its data from" not in check()[2]
    assert "note: a run gets its data from" not in check("-p", "own_data.py")[2]
    _, _, err = check("-p", "looks.py")
    assert "note: a run gets its data from" in err and "looks.py" in err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_speed_that_is_none(check, value):
    code, out, err = check(f"--tflops={value}")
    assert (code, out) == (2, "") and "give a positive number, such as 100" in err
    assert check("--tflops", "fast")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "`launcher data` has no `chek`; write `launcher data check ...`."),
        (["--json"], "`launcher data` is one word too few; write `launcher data check ...`."),
        (["a=1"], "is one word too few"),
        (["check", "--ful"], "did you mean `--full`?"),
        (["check"], "no recipe is chosen"),
    ],
)
def test_mistakes(arguments, said, capsys):
    assert cli.main(["data", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["check", "--help"]])
def test_help_stands_in_for_a_word_too_few(arguments, capsys):
    assert cli.main(["data", *arguments]) == 0
    assert capsys.readouterr().out.startswith("usage: launcher data check --recipe NAME")


def test_flux_recipes_on_circles(monkeypatch, capsys):
    from pathlib import Path

    from launcher import quiet

    monkeypatch.setattr(quiet, "install", lambda verbose: None)
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    for recipe, config, images in (
        ("flux_controlnet", "tests/data/tiny.yaml", 128),
        ("flux_lora_dreambooth", "tests/data/tiny_lora.yaml", 64),
    ):
        options = ["--recipe", recipe, "--config", config, "max_train_samples=null", "--json"]
        assert cli.main(["data", "check", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["samples"] == 64
        assert found["estimate"]["image"]["entries"] == images
