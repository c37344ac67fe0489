"""What is said of a ControlNet, on pictures that are drawn in the place of sampled ones."""

import argparse
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import control, control_curve, sampler, scoring
from benchmarks.shape_scores import shapes
from launcher.training.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent

SIZE = 64


@pytest.fixture(scope="module")
def scenes():
    return [shapes.draw_scene(index, scoring.SEED) for index in range(30)]


@pytest.fixture(scope="module")
def pictures(scenes):
    return [shapes.picture_of(scene, SIZE) for scene in scenes]


def test_what_is_as_the_caption_and_the_control_say(scenes, pictures):
    found = scoring.score(pictures, scenes, scenes)
    assert found.iou > 0.98
    assert found.colours == found.shape == found.both == 1.0
    assert scoring.row("one", found).split() == ["one", f"{found.iou:.3f}", *["100%"] * 3]


def test_what_is_somewhere_else_and_of_another_colour(scenes, pictures):
    others = [*scenes[1:], scenes[0]]
    found = scoring.score([*pictures[1:], pictures[0]], scenes, others)
    assert found.iou > 0.98  # it is where the other's control has it
    assert found.colours < 0.2 and found.shape is None and found.both is None
    assert len(scoring.row("one", found).split()) == 3
    assert scoring.score(pictures, scenes, others).iou < 0.4


def test_an_empty_picture(scenes):
    empty = [np.full((SIZE, SIZE, 3), 90, np.uint8)] * len(scenes)
    assert scoring.score(empty, scenes, scenes) == scoring.Scores(0.0, 0.0, 0.0, 0.0)


def test_what_is_half_right(scenes, pictures):
    """Of the first pictures, one has its colours wrong, and another its shape."""
    half = list(pictures[:4])
    swapped = dataclasses.replace(scenes[0], colour=scenes[0].ground, ground=scenes[0].colour)
    half[0] = shapes.picture_of(swapped, SIZE)
    other = "square" if scenes[1].shape != "square" else "circle"
    half[1] = shapes.picture_of(dataclasses.replace(scenes[1], shape=other), SIZE)
    found = scoring.score(half, scenes[:4], scenes[:4])
    assert (found.colours, found.shape, found.both) == (0.75, 0.75, 0.5)


class Obedient:
    """A sampler that paints the scene whose control image it is given; without one, the same
    picture always."""

    def __init__(self, scenes, pictures, controls):
        self.by_control = {c.tobytes(): p for c, p in zip(controls, pictures, strict=True)}
        self.captions = [scene.caption for scene in scenes]
        self.scales = []

    def encode(self, captions):
        assert captions == self.captions
        return captions

    def sample(self, embeddings, controls, scale):
        assert embeddings == self.captions
        self.scales.append(scale)
        drawn = [self.by_control[control.tobytes()] for control in controls]
        return np.stack(drawn if scale else [drawn[0]] * len(drawn))

    def through_vae(self, pictures):
        return np.stack(pictures)


@pytest.fixture(scope="module")
def controls(scenes):
    return [shapes.condition_of(scene, SIZE, "outline") for scene in scenes]


@pytest.fixture
def sampled(scenes, pictures, controls):
    obedient = Obedient(scenes, pictures, controls)
    found = control.measure(obedient, scenes, controls, [0.5, 1.0])
    assert obedient.scales == [0.0, 0.5, 1.0, 1.0]
    return found


def test_every_kind_is_scored_against_the_control_it_was_made_with(sampled, capsys):
    scores = {kind.name: kind.scores for kind in sampled}
    assert [*scores] == ["the VAE alone", "no control", "scale 0.5", "scale 1", "another's control"]
    for name in ("the VAE alone", "scale 0.5", "scale 1", "another's control"):
        assert scores[name].iou > 0.98
    assert scores["no control"].iou < 0.4
    assert scores["scale 1"].colours == 1 and scores["another's control"].colours < 0.2
    assert scores["another's control"].shape is None


def test_without_a_controlnet_the_base_model_is_scored(scenes, pictures, controls):
    found = control.measure(Obedient(scenes, pictures, controls), scenes, controls, [])
    assert [kind.name for kind in found] == ["the VAE alone", "no control"]


def test_the_grid_shows_each_picture_beside_what_it_was_made_with(
    scenes, pictures, controls, sampled, tmp_path
):
    control.write_grid(tmp_path / "grid.png", scenes, sampled)
    grid = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    assert grid.shape[1] == 8 + 7 * (128 + 8)
    expected = [
        [controls[0], *[pictures[0]] * 4, controls[1], pictures[1]],
        [controls[1], pictures[1], pictures[0], *[pictures[1]] * 2, controls[2], pictures[2]],
    ]
    for top, images in zip((52, 52 + 128 + 8 + 22), expected):
        for number, image in enumerate(images):
            left = 8 + number * (128 + 8)
            shown = grid[top : top + 128 : 2, left : left + 128 : 2]
            np.testing.assert_array_equal(shown, image)


def test_without_a_controlnet_the_grid_shows_no_controls(scenes, pictures, controls, tmp_path):
    sampled = control.measure(Obedient(scenes, pictures, controls), scenes, controls, [])
    control.write_grid(tmp_path / "grid.png", scenes, sampled)
    grid = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    assert grid.shape[1] == 8 + 2 * (128 + 8)
    np.testing.assert_array_equal(grid[52 : 52 + 128 : 2, 8 : 8 + 128 : 2], pictures[0])


def test_every_checkpoint_of_a_curve_is_scored(scenes, pictures, controls, monkeypatch, capsys):
    """One that obeys; one that does not, as the base model."""

    class Sampler(Obedient):
        def __init__(self, base, weights, **_):
            super().__init__(scenes, pictures, controls)
            assert (base, weights) == (Path("base"), Path("one"))

        def load(self, weights):
            self.obeys = weights == Path("two")

        def sample(self, embeddings, controls, scale):
            return super().sample(embeddings, controls, scale and self.obeys)

    monkeypatch.setattr(control_curve, "Sampler", Sampler)
    monkeypatch.setattr(control_curve, "base_of", lambda trained, given: trained.base)
    checkpoints = {
        step: sampler.Trained(Path(name), Path("base"), size=SIZE)
        for step, name in ((200, "one"), (400, "two"))
    }
    options = argparse.Namespace(
        samples=len(scenes), size=None, condition="outline", base=None, steps=1
    )
    found = control_curve.curve_of(checkpoints, options)
    assert [*found] == [0, 200, 400]
    assert found[0] == found[200] and found[0].iou < 0.4 and found[400].iou > 0.98
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["no", "control"], ["step", "200"], ["step", "400"],
    ]  # fmt: skip


def test_the_curves_are_drawn(tmp_path):
    def drawn(curves):
        control_curve.plot(curves, tmp_path / "curves.png")
        return np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)

    flat, rising = drawn({"one": {0: 0.2, 200: 0.2}}), drawn({"one": {0: 0.2, 200: 0.9}})
    assert flat.shape == (450, 900, 3)
    blue = [np.argwhere(image[..., 2] - image[..., 0] > 100) for image in (flat, rising)]
    (top, bottom), (high, low) = ((spots[:, 0].min(), spots[:, 0].max()) for spots in blue)
    assert bottom - top < 20 and abs(low - bottom) <= 2  # both begin at the same height
    assert high < top - 150  # 0.7 of an axis of 1


def test_what_a_run_has_trained(tmp_path):
    run = tmp_path / "run"
    (run / "controlnet").mkdir(parents=True)
    (run / "exported.json").write_text('{"step": 7, "files": []}')
    for resolution, size in (("64", 64), ("[32, 32]", 32), ("[32, 64]", None), ("null", None)):
        (run / "config.yaml").write_text(
            "model: {pretrained_model_name_or_path: base}\n"
            f"data: {{max_sequence_length: 12, resolution: {resolution}}}\n"
        )
        assert sampler.find(run) == sampler.Trained(run / "controlnet", Path("base"), 12, size)
    with pytest.raises(UserError, match=r"has a ControlNet, and no adapters\. Leave out --lora"):
        sampler.find(run, lora=True)
    (run / "controlnet" / "config.json").write_text("{}")
    assert sampler.find(run / "controlnet") == sampler.Trained(run / "controlnet", None)


def test_what_a_run_has_taught_by_adapters(tmp_path):
    file = tmp_path / "pytorch_lora_weights.safetensors"
    file.write_bytes(b"")
    (tmp_path / "exported.json").write_text('{"step": 7, "files": []}')
    (tmp_path / "config.yaml").write_text(
        "model: {pretrained_model_name_or_path: ~/base}\n"
        "data: {max_sequence_length: 12, resolution: 64}\n"
    )
    base = Path.home() / "base"
    assert sampler.find(tmp_path, lora=True) == sampler.Trained(tmp_path, base, 12, 64)
    assert sampler.find(file, lora=True) == sampler.Trained(file, None)
    with pytest.raises(UserError, match=r"has LoRA adapters, and no ControlNet.*--lora"):
        sampler.find(tmp_path)
    with pytest.raises(UserError, match="is a file; give the folder of a run"):
        sampler.find(file)


def test_what_paints_no_captions(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "exported.json").write_text('{"step": 7, "files": []}')
    (tmp_path / "config.yaml").write_text(
        "recipe: autoencoder\nmodel: {pretrained_model_name_or_path: base}\n"
        "data: {resolution: 64}\n"
    )
    with pytest.raises(UserError, match="of the recipe autoencoder, which trains nothing that"):
        sampler.find(tmp_path)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("runs/nothing", r"runs/nothing does not exist; give the folder of a run"),
        ("", r"no run that tells the base model\. Give its folder: --base FOLDER"),
        ("--base benchmarks", r"--base, benchmarks, is not the folder of a pipeline"),
        ("--base b --scales 1", r"--scales: without RUN"),
        ("run --lora run", r"RUN and --lora: one of them"),
        ("run --size 60", r"--size: a multiple of 16"),
        ("run --samples 1", r"--samples: at least 2"),
        ("run --size 16", r"--size: a multiple of 16, at least 32"),
        ("run --steps 0", r"--steps: at least 1"),
        ("run --seed 1000", r"--seed: the data of its base model have 1000; take another"),
        ("run --grid nowhere/grid.png", r"nowhere/grid\.png: there is no folder nowhere"),
        ("run --grid tests", r"tests is a folder; give the name of a file"),
        ("run --json tests", r"tests is a folder; give the name of a file"),
        ("run --grid grid", r"grid: give a name that ends as a picture's does, such as grid\.png"),
        ("run --grid grid.psd", r"grid\.psd: give a name that ends as a picture's does"),
        ("--curve run --plot curve.bmp", r"curve\.bmp: give a name that ends as a picture's does"),
        ("--curve run --plot curve.svg", r"run has no checkpoint"),
        ("--curve run", r"run has no checkpoint\. Give the folder"),
        ("--curve run --json nowhere/a.json", r"there is no folder nowhere"),
    ],
)
def test_what_cannot_be_scored_is_said_in_a_sentence(arguments, said):
    script = "control"
    if arguments.startswith("--curve"):
        script, arguments = "control_curve", arguments.removeprefix("--curve")
    process = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py", *arguments.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode in (1, 2)
    assert re.search(said, process.stderr)
    assert "Traceback" not in process.stderr and not process.stdout
