"""`launcher cp`: a configuration file to start from."""

import os
import re
from pathlib import Path

import pytest

from launcher import cli, plugins
from launcher.config import PLACEHOLDER, list_options, read_overrides, read_yaml, resolve
from launcher.entry_points import list_recipes
from launcher.sections import SECTIONS
from launcher.training.errors import UserError

VARIANT = """
from dataclasses import dataclass

from hooks import hookimpl
from launcher.training.options import option


@dataclass(frozen=True)
class PaintSection:
    '''`paint`: what the fence looks like.'''

    colour: str = option(help="as on the tin")
    asks = ("thinner",)

    thinner: str | None = option(None, help="turpentine or water")
    coats: int = option(2, ge=1, help="layers of paint, " + "each of them thin, " * 12)


@hookimpl
def config_sections():
    return {"paint": PaintSection}
"""


@pytest.fixture
def cp(fence, write, monkeypatch, capsys):
    """Run `launcher cp ...`: exit code, output, errors."""
    from launcher import quiet

    monkeypatch.setattr(quiet, "install", lambda verbose: None)
    write("v.py", VARIANT)

    def run(*arguments):
        code = cli.main(["cp", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def text(cp):
    """A starting file with a variant's options."""
    assert cp("fence", "run.yaml", "-p", "v.py")[0] == 0
    return Path("run.yaml").read_text(encoding="utf-8")


def test_it_names_the_next_command(cp):
    code, out, err = cp("fence", "my run.yaml")
    assert (code, err) == (0, "")
    assert out.endswith("\n    launcher --config 'my run.yaml' --dry-run\n")
    assert sorted(os.listdir()) == ["my run.yaml", "v.py"]


def test_every_option_with_help_and_type_and_default(text):
    assert "# As on the tin" not in text
    assert "\n# What the fence looks like\npaint:\n  # as on the tin (text)\n" in text
    assert f"\n  colour: {PLACEHOLDER}\n" in text
    assert f"\n  thinner: {PLACEHOLDER}\n" in text
    assert "\n  #coats: 2\n" in text
    assert "(a whole number, ≥ 1)\n  #train_batch_size: 4\n" in text
    for info in list_options(SECTIONS):
        assert len(re.findall(rf"^  #?{info.name}: ", text, re.M)) == 1
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_recipe_and_the_variant_are_named(text):
    source = read_yaml(Path("run.yaml"))
    assert (source.recipe, list(source.plugins)) == ("fence", ["v.py"])


def test_a_variant_is_named_as_seen_from_the_file(cp):
    os.mkdir("configs")
    assert cp("fence", "configs/run.yaml", "-p", "v.py")[0] == 0
    assert list(read_yaml(Path("configs/run.yaml")).plugins) == ["../v.py"]


def test_as_it_is_it_names_every_placeholder(text, capsys):
    assert cli.main(["--config", "run.yaml", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "3 problems" in err
    line = text.splitlines().index(f"  output_dir: {PLACEHOLDER}") + 1
    assert (
        f"run.yaml:{line}: train.output_dir is still ???; write in its place: folder that the run "
        "writes to; new, or with nothing in it but single files."
    ) in err
    assert "paint.colour is still ???" in err
    assert "paint.thinner is still ???" in err and "or delete the line" in err


@pytest.mark.parametrize("recipe", [[], ["--recipe", "fence"]])
def test_filled_in_it_is_accepted(text, write, recipe, capsys):
    write("run.yaml", text.replace(PLACEHOLDER, "x"))
    assert cli.main([*recipe, "--config", "run.yaml", "--dry-run"]) == 0


def test_the_command_line_can_fill_it_in(text, capsys):
    settings = ["output_dir=a", "colour=red", "paint.thinner=null"]
    assert cli.main(["--config", "run.yaml", "--dry-run", *settings]) == 0


def test_the_defaults_that_it_shows_are_those_of_a_run(text, write):
    filled = text.replace(PLACEHOLDER, "x")
    commented = re.compile(r"^  #(?=\w)", re.M)
    write("filled.yaml", filled)
    write("all.yaml", commented.sub("  ", filled))
    assert len(commented.findall(filled)) > 15
    sections = plugins.load("fence", ["v.py"]).sections(SECTIONS)
    one, other = (resolve(sections, [read_yaml(Path(n))]) for n in ("filled.yaml", "all.yaml"))
    for section in sections:
        assert one.config[section] == other.config[section]
    assert set(other.origins.values()) & {"default"} == set()


def test_the_recipes_own_file_changes_what_is_shown(cp, site):
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "fence.yaml").write_text("train: {seed: 5, output_dir: runs/fence}\n")
    text = cp("fence", "-")[1]
    assert PLACEHOLDER not in text.partition("recipe:")[2]
    assert "\n  #seed: 5\n" in text
    assert "\n  #output_dir: runs/fence\n" in text
    assert cli.main(["--recipe", "fence", "--dry-run"]) == 0


@pytest.mark.parametrize("recipe", [info.name for info in list_recipes() if not info.error])
def test_filled_in_the_file_of_each_installed_recipe_is_accepted(cp, write, recipe):
    out = cp(recipe, "-")[1]
    write("run.yaml", out.replace(f": {PLACEHOLDER}", ": x"))
    loaded = plugins.load(recipe)
    brought = plugins.recipe_configs(recipe)
    sources = [read_yaml(brought[recipe])] if recipe in brought else []
    config = resolve(loaded.sections(SECTIONS), [*sources, read_yaml(Path("run.yaml"))]).config
    assert config.train.output_dir == "x"


def test_a_dash_prints_it(cp, write):
    code, out, _ = cp("fence", "-")
    assert code == 0 and os.listdir() == ["v.py"]
    write("run.yaml", out)
    assert read_yaml(Path("run.yaml")).recipe == "fence"


def test_nothing_is_written_over(cp, write):
    write("run.yaml", "mine")
    os.symlink("nowhere.yaml", "link.yaml")
    for name in ("run.yaml", "link.yaml"):
        code, out, err = cp("fence", name)
        assert (code, out) == (2, "")
        assert f"{name} is there already, and nothing is written over" in err
    assert Path("run.yaml").read_text() == "mine"
    assert not os.path.exists("nowhere.yaml")


def test_a_file_that_cannot_be_written_whole_is_not_there(cp, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = cp("fence", "run.yaml")
    assert (code, out) == (2, "")
    assert err == "launcher: error: run.yaml cannot be written: No space left on device.\n"
    assert not os.path.exists("run.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fense", "a.yaml"], "did you mean `fence`?"),
        (["a.yaml", "fence"], "the recipe comes first: `launcher cp fence a.yaml`"),
        (["fence", "a"], "`launcher cp fence a.yaml`"),
        (["fence", "a.json"], "a configuration file ends in .yaml"),
        (["fence", "."], "`launcher cp fence my_run.yaml`"),
        (["fence", "new/a.yaml"], "there is no folder new; make it first, with `mkdir -p new`"),
        (["fence", "v.py/a.yaml"], "v.py/a.yaml cannot be written: Not a directory."),
        (["fence"], "required: FILE. `launcher cp --help`"),
        (["fence", "a.yaml", "seed=1"], "`launcher cp` does not take `seed=1`"),
        (["fence", "a.yaml", "-p", "w.py"], "there is no variant file `w.py`"),
    ],
)
def test_mistakes_in_the_command(cp, arguments, says):
    code, out, err = cp(*arguments)
    assert (code, out) == (2, "") and says in err
    assert os.listdir() == ["v.py"]


def test_a_placeholder_counts_as_nothing(tmp_path):
    sections = {"train": SECTIONS["train"]}
    earlier, later = read_overrides(["output_dir=a"]), read_overrides(["output_dir=???"])
    assert resolve(sections, [later, earlier]).config.train.output_dir == "a"
    with pytest.raises(UserError, match=r"^command line: train.output_dir is still \?\?\?"):
        resolve(sections, [earlier, later])
