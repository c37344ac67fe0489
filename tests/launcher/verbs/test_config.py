"""`launcher config`: what each option is set to, and where."""

import json
import re

import pytest

from launcher import cli

VARIANT = """
from dataclasses import dataclass

from hooks import hookimpl
from launcher.training.options import option


@dataclass(frozen=True)
class PaintSection:
    colours: tuple[str, ...] = option(("red", "blue"), help="in this order")


@hookimpl
def config_sections():
    return {"paint": PaintSection}
"""


@pytest.fixture
def shown(fence, write, site, monkeypatch, capsys):
    """Run `launcher config ...`: what it printed."""
    from launcher import quiet

    monkeypatch.setattr(quiet, "install", lambda verbose: None)
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "fence.yaml").write_text("train:\n  seed: 1\n  learning_rate: 1e-3\n")
    write("v.py", VARIANT)
    write("run.yaml", "recipe: fence\ntrain:\n  output_dir: a\n  learning_rate: 2\n")

    def run(*arguments):
        assert cli.main(["config", *arguments]) == 0
        return capsys.readouterr().out

    return run


def row(text, option):
    """The line of an option, its columns."""
    (line,) = re.findall(rf"^(?:  \* |    ){option} .*$", text, re.M)
    return line[:4].strip(), re.split(r"\s{2,}", line[4:])


def test_each_value_with_its_origin(shown, site):
    text = shown("--config", "run.yaml", "max_grad_norm=null")
    assert row(text, "output_dir") == ("*", ["output_dir", "a", "run.yaml:3"])
    assert row(text, "learning_rate") == (
        "*", ["learning_rate", "2.0", "run.yaml:4", "(default: 5.0e-06)"],
    )  # fmt: skip
    assert row(text, "seed")[1][1:3] == ["1", f"{site}/fence_plugin/configs/fence.yaml:2"]
    assert row(text, "max_grad_norm")[1][1:] == ["null", "command line", "(default: 1.0)"]
    assert row(text, "train_batch_size") == ("", ["train_batch_size", "4", "default"])


def test_every_section_and_option_stands_in_it_once(shown):
    from launcher.config import list_options
    from launcher.sections import SECTIONS

    text = shown("--config", "run.yaml")
    for info in list_options(SECTIONS):
        row(text, info.name)
    assert re.findall(r"^(\w+)$", text, re.M) == list(SECTIONS)


def test_columns_are_aligned_and_lines_end_where_they_end(shown):
    text = shown("--config", "run.yaml")
    assert len({m.start(1) for m in re.finditer(r"^    \w+ +\S+ +(default)$", text, re.M)}) > 1
    starts = [re.search(r"  default$", line) for line in text.splitlines()]
    assert len({m.start() for m in starts if m}) == 1
    assert not re.search(r" $", text, re.M)


def test_variants_and_their_options_belong_to_it(shown):
    text = shown("--config", "run.yaml", "-p", "v.py", "colours=green,white")
    assert "plugin   v.py\n" in text
    assert row(text, "colours")[1] == [
        "colours", "[green, white]", "command line", "(default: [red, blue])",
    ]  # fmt: skip


def test_json(shown, site, tmp_path):
    found = json.loads(shown("--config", "run.yaml", "-p", "v.py", "--json", "seed=7"))
    assert found["recipe"] == "fence"
    assert found["plugins"] == [str(tmp_path / "work" / "v.py")]
    options = found["options"]
    assert options["train.seed"] == {"value": 7, "default": 0, "origin": "command line"}
    assert options["train.learning_rate"]["origin"] == "run.yaml:4"
    assert options["train.train_batch_size"]["origin"] == "default"
    assert options["paint.colours"]["value"] == ["red", "blue"]


def test_no_colours_but_on_a_terminal(shown, monkeypatch):
    import sys

    assert "\033" not in shown("--config", "run.yaml")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = [line for line in shown("--config", "run.yaml").splitlines() if "\033[1m" in line]
    assert len(lines) == 3 and all("*" in line for line in lines)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in shown("--config", "run.yaml")


def test_mistakes_are_those_of_a_run(shown, capsys):
    assert cli.main(["config", "--config", "run.yaml", "sed=1", "train_batch_size=0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 problems" in captured.err and "did you mean train.seed?" in captured.err
    assert cli.main(["config"]) == 2
    assert "no recipe is chosen" in capsys.readouterr().err
