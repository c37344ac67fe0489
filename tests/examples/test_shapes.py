"""The pictures of shapes: each is what its caption says, and its control image shows where."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.shape_scores import shapes
from flux_controlnet_plugin.data import build_controlnet_dataset

SIZE = 64
SCRIPT = Path(shapes.__file__)


@pytest.fixture(scope="module")
def scenes():
    return [shapes.draw_scene(index, shapes=shapes.SHAPES) for index in range(200)]


def test_all_colours_can_be_told_apart():
    for one, other in itertools.combinations(shapes.COLOURS.values(), 2):
        apart = np.abs(np.subtract(one, other)).max()
        assert apart >= 95 > 6 * shapes.TEXTURE_CONTRAST


def test_a_caption_names_all_but_place_and_size():
    scene = shapes.Scene("circle", "red", "striped", "blue", 0.5, 0.5, 0.2)
    assert scene.caption == "red circle on a striped blue background"
    plain = shapes.Scene("cross", "white", "plain", "black", 0.3, 0.6, 0.2)
    assert plain.caption == "white cross on a black background"


def test_a_picture_has_the_colours_of_its_caption(scenes):
    for scene in scenes:
        picture, mask = shapes.picture_of(scene, SIZE).astype(int), shapes.mask_of(scene, SIZE)
        depth = shapes.depth_inside(scene, SIZE)
        assert picture.shape == (SIZE, SIZE, 3) and mask.shape == (SIZE, SIZE)
        assert (picture[depth > 1] == shapes.COLOURS[scene.colour]).all()
        off = np.abs(picture[depth < -1] - shapes.COLOURS[scene.ground]).max()
        assert off <= 2 * shapes.TEXTURE_CONTRAST
        tones = np.unique(picture[depth < -1], axis=0)
        assert len(tones) == (1 if scene.texture == "plain" else 2)


def test_there_is_background_at_every_edge(scenes):
    for scene in scenes:
        mask = shapes.mask_of(scene, SIZE)
        frame = mask.copy()
        frame[3:-3, 3:-3] = False
        assert mask.any() and not frame.any()


def area(name, radius):
    scene = shapes.Scene(name, "red", "plain", "blue", 0.5, 0.5, radius)
    return shapes.mask_of(scene, 512).mean()


def test_shapes_of_one_radius_are_about_as_large():
    areas = [area(name, 0.2) for name in shapes.SHAPES]
    assert max(areas) < 1.35 * min(areas)
    assert area("circle", 0.2) == pytest.approx(np.pi * 0.2**2, rel=0.01)


def test_control_images_show_the_shape_and_nothing_else(scenes):
    for scene in scenes[:50]:
        depth, mask = shapes.depth_inside(scene, SIZE), shapes.mask_of(scene, SIZE)
        outline, filled, hill = (
            shapes.condition_of(scene, SIZE, name)[..., 0] for name in shapes.CONDITIONS
        )
        assert ((outline > 0) == (np.abs(depth) < 2 - 1 / 510)).all()
        np.testing.assert_array_equal(filled > 127, mask | (depth == 0))
        assert hill.max() > 250 and not hill[depth < -0.5].any()
        deep = depth > 1
        order = np.argsort(depth[deep])
        assert (np.diff(hill[deep][order].astype(int)) >= 0).all()  # brighter inwards


def test_numbers_and_seeds_make_different_scenes():
    assert shapes.draw_scene(3) == shapes.draw_scene(3)
    assert len({shapes.draw_scene(index) for index in range(50)}) == 50
    assert shapes.draw_scene(3, seed=1) != shapes.draw_scene(3)
    assert {shapes.draw_scene(index).shape for index in range(50)} == set(shapes.KNOWN_SHAPES)


@pytest.mark.parametrize("form", ["folder", "train.parquet"])
def test_the_recipe_reads_what_is_written(form, tmp_path):
    target = tmp_path if form == "folder" else tmp_path / form
    shapes.make_data(target, 5, size=32, condition="mixed")
    dataset = build_controlnet_dataset(
        dataset_name=str(tmp_path),
        conditioning_image_column="conditioning_image",
        sizes=[(32, 32)],
    )
    assert len(dataset) == 5
    for index in range(5):
        scene, kind = shapes.draw_scene(index), shapes.CONDITIONS[index % 3]
        sample = dataset[index]
        assert sample.captions == (scene.caption,)
        for pixels, drawn in (
            (sample.target, shapes.picture_of(scene, 32)),
            (sample.condition, shapes.condition_of(scene, 32, kind)),
        ):
            np.testing.assert_allclose((np.moveaxis(pixels, 0, 2) + 1) * 127.5, drawn, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("new --samples 0", "--samples: at least 1"),
        ("new --size 0", "--size: at least 16"),
        ("full", "full is there already; give a new name, or remove it"),
        ("full/train.parquet", "full/train.parquet is there already"),
    ],
)
def test_what_cannot_be_drawn_is_said_and_nothing_written(arguments, said, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "train.parquet").write_text("of another time")
    command = [sys.executable, SCRIPT, *arguments.split()]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 2 and said in process.stderr
    assert [file.name for file in tmp_path.rglob("*")] == ["full", "train.parquet"]
