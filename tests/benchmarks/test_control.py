"""What is said of a ControlNet, on pictures that are drawn in the place of sampled ones."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import control, control_curve
from benchmarks.shape_scores import shapes

SIZE = 64


@pytest.fixture(scope="module")
def scenes():
    return [shapes.draw_scene(index, control.SEED) for index in range(30)]


@pytest.fixture(scope="module")
def pictures(scenes):
    return [shapes.picture_of(scene, SIZE) for scene in scenes]


def test_what_is_as_the_caption_and_the_control_say(scenes, pictures):
    found = control.score(pictures, scenes, scenes)
    assert found.iou > 0.98
    assert found.colours == found.shape == 1.0
    assert control.row(found).split() == [f"{found.iou:.3f}", "100%", "100%"]


def test_what_is_somewhere_else_and_of_another_colour(scenes, pictures):
    others = [*scenes[1:], scenes[0]]
    found = control.score([*pictures[1:], pictures[0]], scenes, others)
    assert found.iou > 0.98  # it is where the other's control has it
    assert found.colours < 0.2 and found.shape is None
    assert control.score(pictures, scenes, others).iou < 0.4


def test_an_empty_picture(scenes):
    empty = [np.full((SIZE, SIZE, 3), 90, np.uint8)] * len(scenes)
    assert control.score(empty, scenes, scenes) == control.Scores(0.0, 0.0, 0.0)


def test_the_grid_has_a_row_a_scene_and_a_column_a_kind(scenes, pictures, tmp_path):
    controls = [shapes.condition_of(scene, SIZE, "outline") for scene in scenes]
    kinds = {"no control": np.stack(pictures), "scale 1": np.stack(pictures)}
    control.write_grid(tmp_path / "grid.png", scenes, controls, kinds)
    width, height = Image.open(tmp_path / "grid.png").size
    assert width >= 3 * SIZE and height >= control.GRID * SIZE


def test_where_the_controlnet_of_a_run_is(tmp_path):
    assert control.controlnet_in(tmp_path) == tmp_path
    (tmp_path / "controlnet").mkdir()
    assert control.controlnet_in(tmp_path) == tmp_path / "controlnet"


def test_the_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    control_curve.plot({"one": {0: 0.2, 200: 0.5}, "two": {0: 0.2}}, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (900, 450)
