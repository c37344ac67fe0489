"""The command line, as its users type it."""

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import cli
from launcher.training.errors import UserError
from launcher.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]

VARIANT = """
from dataclasses import dataclass

from hooks import hookimpl


@dataclass(frozen=True)
class PaintSection:
    x: int = 1


@hookimpl
def config_sections():
    return {"paint": PaintSection}


@hookimpl
def build_loss():
    return "the variant's loss"


@hookimpl(wrapper=True)
def train_step():
    return (yield)
"""


@pytest.fixture
def launcher(fence, write, site):
    """Run the launcher in a process of its own; returns what it printed and its exit code."""

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path_of(site)},
            **options,
        )

    return run


def path_of(site):
    return os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def started(fence, write, monkeypatch):
    """What `launcher ...` hands to the pipeline, in this process."""
    from launcher import pipeline, quiet

    calls = []

    def record(plugins, resolved, command_line, console, resumed):
        calls.append((plugins, resolved.config, command_line))

    monkeypatch.setattr(pipeline, "run", record)
    monkeypatch.setattr(quiet, "install", lambda verbose: None)

    def run(*arguments):
        assert cli.main(list(arguments)) == 0
        return calls.pop()

    return run


def error_of(arguments, capsys):
    """The message of a command that the user got wrong."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("launcher: error: ")
    assert "Traceback" not in captured.err
    return captured.err


# --- run ------------------------------------------------------------------------------------


def test_run_hands_plugins_and_configuration_to_the_pipeline(started, write):
    write("v.py", VARIANT)
    arguments = ["--recipe", "fence", "-p", "v.py", "train.output_dir=a", "paint.x=3"]
    plugins, config, command_line = started(*arguments)
    assert plugins.recipe == "fence"
    assert plugins.hook.build_loss(config=None, models=None) == "the variant's loss"
    assert config.paint.x == 3
    assert config.train.output_dir == "a"
    assert command_line == arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--recipe", "fence", "train.output_dir=a", "train.seed=3"],
        ["train.seed=3", "--recipe", "fence", "train.output_dir=a"],
        ["train.seed=3", "--recipe=fence", "--", "train.output_dir=a"],
    ],
)
def test_verb_options_and_settings_in_any_order(started, arguments):
    _, config, _ = started(*arguments)
    assert (config.train.seed, config.train.output_dir) == (3, "a")


def test_yaml_files_can_name_the_recipe_and_plugins(started, write):
    write("configs/v.py", VARIANT)
    write("configs/run.yaml", "recipe: fence\nplugins: [v.py]\ntrain: {output_dir: a}\n")
    plugins, config, _ = started("--config", "configs/run.yaml")
    assert plugins.recipe == "fence"
    assert config.paint.x == 1


def test_the_recipe_on_the_command_line_wins(started, write):
    write("run.yaml", "recipe: nonexistent\ntrain: {output_dir: a}\n")
    plugins, _, _ = started("--config", "run.yaml", "--recipe", "fence")
    assert plugins.recipe == "fence"


def test_later_yaml_files_win_and_the_command_line_beats_them(started, write):
    write("a.yaml", "recipe: nonexistent\ntrain: {output_dir: a, seed: 1, max_train_steps: 1}\n")
    write("b.yaml", "recipe: fence\ntrain: {seed: 2, max_train_steps: 2}\n")
    _, config, _ = started("--config", "a.yaml", "--config", "b.yaml", "train.max_train_steps=3")
    train = config.train
    assert (train.output_dir, train.seed, train.max_train_steps) == ("a", 2, 3)


def test_configurations_that_the_recipe_brings(started, site, write):
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "fence.yaml").write_text("train: {output_dir: a, seed: 1}\n")
    (configs / "quick.yaml").write_text("train: {seed: 2}\n")
    assert started("--recipe", "fence")[1].train.seed == 1
    assert started("--recipe", "fence", "--config", "quick")[1].train.seed == 2
    write("mine.yaml", "recipe: fence\ntrain: {seed: 3}\n")
    assert started("--config", "mine.yaml", "--config", "quick")[1].train.seed == 2
    assert started("--config", "quick", "--config", "mine.yaml")[1].train.seed == 3


def test_a_file_comes_before_a_configuration_of_that_name(started, site, write):
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "quick.yaml").write_text("train: {output_dir: a, seed: 2}\n")
    write("quick", "train: {output_dir: a, seed: 4}\n")
    assert started("--recipe", "fence", "--config", "quick")[1].train.seed == 4


def test_an_unknown_configuration_of_the_recipe(fence, write, site, capsys):
    configs = site / "fence_plugin" / "configs"
    configs.mkdir()
    (configs / "quickstart.yaml").write_text("")
    text = error_of(["--recipe", "fence", "--config", "quikstart"], capsys)
    assert "there is no file `quikstart`" in text
    assert "did you mean `quickstart`? It brings: quickstart, precision/" in text


def test_without_recipe_the_installed_ones_are_named(fence, write, capsys):
    for arguments in ([], ["train.seed=1"], ["-v"]):
        text = error_of(arguments, capsys)
        assert "no recipe is chosen: give `--recipe NAME`" in text
        assert "fence" in text.partition("Installed: ")[2]


def test_an_unknown_recipe(fence, write, capsys):
    assert "did you mean `fence`?" in error_of(["--recipe", "fense"], capsys)


def test_a_section_of_a_variant_that_the_launcher_has(fence, write, capsys):
    write("v.py", VARIANT.replace('"paint"', '"train"'))
    text = error_of(["--recipe", "fence", "-p", "v.py", "output_dir=a"], capsys)
    assert "section `train`" in text and "v.py:13" in text


# --- what users of other scripts type -------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "instead", "write_this"),
    [
        ("--learning_rate 1e-5", "--learning_rate 1e-5", "learning_rate=1e-5"),
        ("--learning_rate=1e-5", "--learning_rate=1e-5", "learning_rate=1e-5"),
        ("--learning-rate 1e-5", "--learning-rate 1e-5", "learning_rate=1e-5"),
        ("--num_single_layers -1", "--num_single_layers -1", "num_single_layers=-1"),
        ("--gradient_checkpointing", "--gradient_checkpointing", "gradient_checkpointing=true"),
        ("--resolution 512 768", "--resolution 512 768", "'resolution=[512, 768]'"),
        ("--revision main", "--revision main", "revision=main"),
        ("-lr 1e-5", "-lr 1e-5", "lr=1e-5"),
        (
            "--train_batch_size 4 seed=1 --gradient_checkpointing --max_train_steps=9",
            "--train_batch_size 4 --gradient_checkpointing --max_train_steps=9",
            "train_batch_size=4 gradient_checkpointing=true max_train_steps=9",
        ),
    ],
)
def test_options_of_other_scripts_are_answered_with_the_way_out(
    fence, capsys, arguments, instead, write_this
):
    for before in (["--recipe", "fence"], ["run", "--recipe", "fence"], []):
        text = error_of([*before, *arguments.split()], capsys)
        assert f"instead of `{instead}` write `{write_this}`" in text


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--recipes=fence", "there is no option `--recipes`; did you mean `--recipe`?"),
        ("--plugins", "there is no option `--plugins`; did you mean `--plugin`?"),
        ("--conf=a.yaml", "there is no option `--conf`; did you mean `--config`?"),
        ("--verbos", "there is no option `--verbos`; did you mean `--verbose`?"),
        ("quickstart", "`quickstart` is neither an option nor a setting. Settings"),
        ("v.py", "did you mean `-p v.py`?"),
        ("run.yaml", "did you mean `--config run.yaml`?"),
        ("fence", "did you mean `--recipe fence`?"),
        ("hooks", "the verb comes first: `launcher hooks ...`"),
        ("learning_rate 1e-5", "`learning_rate` is neither an option nor a setting; did you mean "),
        ("learning_rate 1e-5", "did you mean `learning_rate=1e-5`?"),
        ("learning_rate = 1e-5", "did you mean `learning_rate=1e-5`?"),
        ("learning_rate= 1e-5", "did you mean `learning_rate=1e-5`?"),
        ("learning_rate =1e-5", "did you mean `learning_rate=1e-5`?"),
        ("= 3", "without spaces around the `=`"),
        ("=3", "without spaces around the `=`"),
        ("-x", "there is no option `-x`. `launcher run --help` shows the options."),
    ],
)
def test_stray_arguments(fence, capsys, argument, says):
    text = error_of(["--recipe", "fence", "train.seed=1", *argument.split(" ")], capsys)
    assert says in text


def test_a_setting_may_be_empty(started):
    _, config, _ = started("--recipe", "fence", "train.output_dir=a", "train.max_grad_norm=")
    assert config.train.max_grad_norm is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recipe"], "there is no verb `recipe`; did you mean `recipes`?"),
        (["hook", "--recipe", "fence"], "there is no verb `hook`; did you mean `hooks`?"),
        (["train"], f"The verbs are {', '.join(VERBS)}; `launcher --help`"),
        (["fence"], "there is no verb `fence`; did you mean `--recipe fence`?"),
        (["--recipe"], "expected one argument. `launcher run --help` shows the options."),
        (["hooks", "train.seed=1"], "`launcher hooks` does not take `train.seed=1`"),
        (["hooks", "--jsn"], "there is no option `--jsn`; did you mean `--json`?"),
        (["recipes", "--json"], "`launcher recipes` does not take `--json`"),
    ],
)
def test_mistakes_in_the_command(fence, capsys, arguments, says):
    assert says in error_of(arguments, capsys)


# --- listing --------------------------------------------------------------------------------


def test_recipes_are_listed(launcher, install):
    install("bombs", {"launcher.recipes": {"bomb": "no_bomb"}}, {})
    done = launcher("recipes")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    fence = next(line for line in lines if line.startswith("fence"))
    assert "fences 1.2" in fence and fence.endswith("Paints fences.")
    broken = lines.index(next(line for line in lines if line.startswith("bomb")))
    assert lines[broken + 1] == "    cannot be used: there is no module `no_bomb`"


def test_hooks_are_shown_with_owner_file_and_line(launcher, write, site):
    write("v.py", VARIANT)
    done = launcher("hooks", "--recipe", "fence", "-p", "v.py")
    assert (done.returncode, done.stderr) == (0, "")
    blocks = {b.partition("(")[0]: b.splitlines() for b in done.stdout.strip().split("\n\n")}
    loss = blocks["build_loss"]
    assert loss[0].split() == ["build_loss(config,", "models)", "owned"]
    assert loss[1].strip().startswith("The forward pass and its loss")
    recipe = site / "fence_plugin" / "recipe.py"
    line = recipe.read_text().splitlines().index("def build_loss(config, models):") + 1
    assert loss[2].split() == ["owner", "v.py:18"]
    assert loss[3].split() == ["instead", "of", "fence", f"{recipe}:{line}"]
    assert blocks["train_step"][-1].split() == ["wrapped", "by", "v.py:23"]


def test_hooks_as_json(launcher, write):
    write("v.py", VARIANT)
    done = launcher("hooks", "--recipe", "fence", "-p", "v.py", "--json")
    infos = {info["name"]: info for info in json.loads(done.stdout)}
    assert infos["build_loss"]["owner"] == {
        "plugin": "v.py",
        "function": "build_loss",
        "file": str(Path("v.py").resolve()),
        "line": 18,
    }
    assert infos["build_loss"]["kind"] == "owned"
    assert infos["build_loss"]["arguments"] == ["config", "models"]
    assert infos["train_step"]["wrappers"][0]["line"] == 23


def test_hooks_without_a_recipe_are_the_plugin_api(launcher):
    done = launcher("hooks")
    assert done.returncode == 0
    assert "none: a recipe must answer it" in done.stdout
    assert "launcher.defaults" in done.stdout


def test_hooks_with_the_plugins_of_a_yaml_file(launcher, write):
    write("v.py", VARIANT)
    write("run.yaml", "recipe: fence\nplugins: [v.py]\n")
    assert "v.py:18" in launcher("hooks", "--config", "run.yaml").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["recipes"],
        ["hooks"],
        ["hooks", "--recipe", "fence"],
        ["hooks", "--help"],
        ["config", "--recipe", "fence", "output_dir=a"],
        ["cp", "fence", "-"],
        ["--recipe", "fense"],
        ["--learning_rate", "1e-5"],
    ],
    ids=" ".join,
)
def test_what_only_lists_imports_neither_frameworks_nor_the_pipeline(fence, site, arguments):
    code = (
        "import sys\nfrom launcher.cli import main\n"
        f"main({arguments})\n"
        "print('imported', sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path_of(site)},
    )
    modules = ast.literal_eval(done.stdout.rpartition("imported ")[2])
    assert "launcher.cli" in modules
    heavy = {"mindspore", "mindone", "transformers", "datasets", "numpy", "launcher.pipeline"}
    assert heavy & set(modules) == set()


# --- help, version, exit codes --------------------------------------------------------------


def test_help_names_every_verb_and_can_be_copied(launcher):
    done = launcher("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for verb in cli.VERBS:
        assert f"\n  {verb} " in done.stdout
    assert "\n  launcher --recipe flux_controlnet" in done.stdout


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_each_verb_has_an_example(launcher, verb):
    done = launcher(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: launcher ")
    assert "\nexample:\n  launcher " in done.stdout


def test_version(launcher):
    done = launcher("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("launcher ") and "(flux-controlnet-plugin)" in done.stdout


def test_a_mistake_of_the_user_exits_with_2_and_without_traceback(launcher):
    done = launcher("--recipe", "fense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("launcher: error: there is no recipe `fense`")
    assert "Traceback" not in done.stderr


def test_a_plugin_that_fails_at_import_keeps_its_traceback(launcher, install, write):
    install("bombs", {"launcher.recipes": {"bomb": "bomb"}}, {"bomb.py": "def f():\n  1/0\nf()"})
    done = launcher("hooks", "--recipe", "bomb")
    assert done.returncode == 1
    first, second, third, *_, last = done.stderr.splitlines()
    assert first == (
        "launcher: error: the recipe `bomb` (bomb, of bombs 1.0) failed while it was imported:"
    )
    assert second.startswith("Traceback")
    assert "bomb.py" in third
    assert last == "ZeroDivisionError: division by zero"


def test_bugs_keep_their_traceback(fence, monkeypatch):
    def crash(argv):
        raise ZeroDivisionError

    monkeypatch.setitem(cli.VERBS, "recipes", crash)
    with pytest.raises(ZeroDivisionError):
        cli.main(["recipes"])


def test_ctrl_c(fence, monkeypatch, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, "recipes", interrupt)
    assert cli.main(["recipes"]) == 130
    assert capsys.readouterr().err == "launcher: interrupted\n"


@pytest.mark.parametrize("arguments", [["hooks"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(fence, site, arguments):
    """As in `launcher hooks | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path_of(site)},
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)  # argparse itself is content with it


def test_without_standard_output_and_error(fence, site, tmp_path):
    """As daemons start programs; their numbers must not go to the files that a run opens."""
    program = f"""
import sys
from launcher import cli

def verb(argv):
    with open({str(tmp_path / "metrics.jsonl")!r}, "x") as file:
        assert file.fileno() > 2
    print("said")
    print("said", file=sys.stderr)

cli.VERBS["recipes"] = verb
sys.exit(cli.main(["recipes"]))
"""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, program],
        env={**os.environ, "PYTHONPATH": path_of(site)},
    )
    assert done.returncode == 0
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_broken_pipe_elsewhere_is_not_hidden(monkeypatch, capfd):
    def crash(argv):
        raise BrokenPipeError("a data loader's worker has gone")

    monkeypatch.setitem(cli.VERBS, "recipes", crash)
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    with pytest.raises(BrokenPipeError):
        cli.main(["recipes"])


def test_messages_are_wrapped_on_a_terminal_only(monkeypatch, capsys):
    def fail(argv):
        raise UserError("2 problems:\n- " + "word " * 30 + "\n- short\n    code " + "x" * 60)

    monkeypatch.setitem(cli.VERBS, "recipes", fail)
    cli.main(["recipes"])
    assert "word " * 30 in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    cli.main(["recipes"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["launcher: error: 2 problems:", "- word word word word word word word"]
    assert lines[2].startswith("  word")
    assert all(len(line) <= 40 for line in lines[:-1])
    assert lines[-2:] == ["- short", "    code " + "x" * 60]
