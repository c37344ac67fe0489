"""When a run is validated, on which samples, and where what is found goes."""

import json
from types import SimpleNamespace

import pytest

from hooks.types import Validation
from launcher import validation
from launcher.mending import Mender
from launcher.rundir import RunDir
from launcher.sections import ValidationSection
from launcher.training.errors import UserError
from launcher.validation import Validator


def config(**options):
    return SimpleNamespace(validation=ValidationSection(**options))


class Trackers:
    def __init__(self):
        self.calls = []

    def log(self, step, figures):
        self.calls.append(("log", step, figures))

    def images(self, step, images):
        self.calls.append(("images", step, images))


def validator(run_dir=None, found=None, said=None, trackers=None, **options):
    hook = SimpleNamespace(validate=lambda **arguments: found)
    console = SimpleNamespace(headline=None if said is None else said.append)
    return Validator(config(**options), hook, (), run_dir, trackers, console, None)


@pytest.mark.parametrize(
    "options, steps",
    [
        (dict(validation_steps=4), [4, 8]),
        (dict(at_start=True), [0]),
        (dict(at_end=True), [10]),
        (dict(validation_steps=5, at_start=True, at_end=True), [0, 5, 10]),
    ],
)
def test_when(options, steps):
    looks = validator(**options)
    assert [step for step in range(11) if looks.is_due(step, 10)] == steps


def test_what_is_found_is_recorded_shown_and_told(tmp_path):
    found = Validation({"loss": 0.5, "gap": float("nan")}, {"grid": tmp_path / "grid.png"})
    said, trackers = [], Trackers()
    with RunDir.claim(tmp_path / "run", "") as run_dir:
        looks = validator(run_dir, found, said, trackers, at_end=True)
        looks.run(SimpleNamespace(step=3, models=None))
    (line,) = (tmp_path / "run/validation/figures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 3, "loss": 0.5, "gap": None}
    assert said == ["validation after step 3: loss 0.5, gap nan"]
    (_, _, figures), images = trackers.calls
    assert list(figures) == ["validation/loss", "validation/gap"]
    assert images == ("images", 3, {"grid": tmp_path / "grid.png"})


def test_the_recipes_own_words(tmp_path):
    said = []
    with RunDir.claim(tmp_path / "run", "") as run_dir:
        looks = validator(run_dir, Validation(summary="all is well"), said, Trackers())
        looks.run(SimpleNamespace(step=0, models=None))
    assert said == ["validation after step 0: all is well"]
    assert not (tmp_path / "run/validation").exists()


def test_the_last_samples_are_held_out():
    options = config(heldout_samples=3, at_end=True)
    assert validation.trained_samples(options, 10) == 7
    assert list(validation.held_out(options, range(10))) == [7, 8, 9]
    assert validation.trained_samples(config(), 10) == 10


@pytest.mark.parametrize("samples", [2, 3])
def test_some_must_be_left(samples):
    with pytest.raises(UserError, match="none is left to train on"):
        validation.trained_samples(config(heldout_samples=3, at_end=True), samples)


def test_samples_that_nobody_looks_at_are_a_mistake():
    (problem,) = ValidationSection(heldout_samples=3).problems()
    assert "there are no validations" in problem
    assert list(ValidationSection(heldout_samples=3, at_start=True).problems()) == []


def test_a_recipe_that_has_no_validation():
    plugins = SimpleNamespace(leaves_to_launcher=lambda name: True, recipe="fence")
    (problem,) = validation.problems(config(validation_steps=1), plugins)
    assert "the recipe fence has none" in problem
    assert validation.problems(config(), plugins) == []


class Damaged:
    """Looks at encodings of which one is damaged until it is made anew."""

    def __init__(self, mends):
        self.is_damaged, self.mends, self.mended = True, mends, []

    def look(self, **arguments):
        from launcher.training.cache import DamagedEntryError

        if self.is_damaged:
            raise DamagedEntryError(b"key", "a.safetensors", "its checksum is another")
        return Validation(summary="all is well")

    def mend(self, key):
        self.mended.append(key)
        self.is_damaged = not self.mends


@pytest.mark.parametrize("mends", [True, False])
def test_a_damaged_encoding_is_made_anew(mends):
    damaged, said = Damaged(mends), []
    looks = Validator(
        config(at_end=True),
        SimpleNamespace(validate=damaged.look),
        (),
        None,
        Trackers(),
        SimpleNamespace(headline=said.append),
        Mender(damaged.mend, said.append),
    )
    state = SimpleNamespace(step=3, models=None)
    if mends:
        looks.run(state)
        assert said[-1] == "validation after step 3: all is well"
    else:
        with pytest.raises(UserError, match="the disk or the memory of this machine is at fault"):
            looks.run(state)
    assert damaged.mended == [b"key"]
    assert "it is made anew" in said[0]


def test_a_run_that_goes_back_forgets_the_images_that_came_after(tmp_path):
    for step in (0, 50, 100):
        folder = tmp_path / "validation" / f"step-{step:06}"
        folder.mkdir(parents=True)
        (folder / "prompt-0.png").write_text(str(step))
    other = tmp_path / "other"
    validation.copy_images(tmp_path, other, 50)
    copied = sorted((other / "validation").rglob("*.png"))
    assert [path.read_text() for path in copied] == ["0", "50"]
    validation.forget_images(tmp_path, 50)
    left = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert left == ["step-000000", "step-000050"]
    validation.forget_images(tmp_path / "run without images", 0)
