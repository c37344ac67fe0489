"""`--dry-run`: everything up to the weights, and what the run would be."""

import pytest

from launcher import cli

VARIANT = """
from hooks import hookimpl


@hookimpl
def build_models(config, stage):
    raise AssertionError("a dry run loads nothing")


@hookimpl
def build_dataset(config, dist):
    return range(10)


@hookimpl(wrapper=True)
def train_step():
    return (yield)
"""


@pytest.fixture
def dry_run(fence, write, monkeypatch, capsys):
    """Run `launcher --recipe fence -p v.py --dry-run ...`: exit code, output, errors."""
    from launcher import quiet

    monkeypatch.setattr(quiet, "install", lambda verbose: None)
    write("v.py", VARIANT)

    def run(*arguments):
        arguments = ["--recipe", "fence", "-p", "v.py", "--dry-run", "output_dir=out", *arguments]
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def rows(text):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line}


def test_the_run_is_described(dry_run, tmp_path):
    code, out, err = dry_run("train_batch_size=2", "gradient_accumulation_steps=2")
    assert (code, err) == (0, "")
    said = rows(out)
    assert said["recipe"] == "fence"
    assert said["plugin"] == "v.py"
    assert "10 samples" in said["data"]
    assert said["batch"].startswith("4 samples a step")
    assert said["steps"] == "3, which is 1.2 epochs"
    assert said["device"].startswith("auto")
    assert said["output_dir"] == f"{tmp_path / 'work' / 'out'} (not made)"
    assert "No mistake found." in out


def test_who_answers_in_place_of_the_recipe(dry_run):
    _, out, _ = dry_run()
    others = out.partition("answered by others")[2].partition("data set")[0]
    assert [line.split()[0] for line in others.splitlines()] == [
        "build_dataset", "inspect_data", "prepare_data", "build_models", "apply_precision",
        "plan_encodings", "precompute", "estimate_memory", "build_optimizer", "train_step",
        "train_step", "build_validation", "validate", "describe_model", "sample",
    ]  # fmt: skip
    assert "v.py:11" in others and "launcher.defaults" in others and "wrapped by v.py:16" in others
    assert "recipe.py" not in others


def test_nothing_is_written(dry_run, tmp_path):
    before = sorted(tmp_path.rglob("*.y*"))
    assert dry_run()[0] == 0
    assert sorted(tmp_path.rglob("*.y*")) == before
    assert not (tmp_path / "work" / "out").exists()


def test_mistakes_are_found(dry_run, write, tmp_path):
    code, out, err = dry_run("max_train_steps=5", "lr_scheduler=constant", "seed=-1")
    assert (code, out) == (2, "") and "train.seed is '-1'" in err
    (tmp_path / "work" / "out").mkdir()
    write("out/config.yaml", "")
    code, out, err = dry_run()
    assert (code, out) == (2, "") and "already holds a run" in err


def test_a_schedule_that_does_not_fit_is_found(dry_run):
    code, _, err = dry_run(
        "lr_scheduler=constant_with_warmup", "lr_warmup_steps=50", "max_train_steps=5"
    )
    assert code == 2 and "constant_with_warmup" in err


def test_a_traced_dry_run_shows_the_hooks_it_calls(dry_run):
    code, out, err = dry_run("--trace")
    assert code == 0 and "-> " not in out
    called = [line.split()[1] for line in err.splitlines() if line.startswith("->")]
    assert called == ["check_config", "build_dataset"]
