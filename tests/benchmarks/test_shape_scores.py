"""The scores of pictures of shapes, on pictures that are drawn."""

import numpy as np
import pytest

from benchmarks import shape_scores
from benchmarks.shape_scores import shapes

SIZE = 64


@pytest.fixture(scope="module")
def scenes():
    return [shapes.draw_scene(index, 7, shapes.SHAPES) for index in range(400)]


@pytest.fixture(scope="module")
def pictures(scenes):
    return [shapes.picture_of(scene, SIZE) for scene in scenes]


def test_the_mask_is_where_the_shape_is(scenes, pictures):
    found = {True: [], False: []}
    for scene, picture in zip(scenes, pictures):
        overlap = shape_scores.iou(shape_scores.segment(picture), shapes.mask_of(scene, SIZE))
        found[scene.texture == "plain"].append(overlap)
    assert min(found[True]) > 0.97 and np.mean(found[True]) > 0.9995
    assert min(found[False]) > 0.9 and np.mean(found[False]) > 0.99


def test_colours_and_shape_are_those_of_the_caption(scenes, pictures):
    for scene, picture in zip(scenes, pictures):
        mask = shape_scores.segment(picture)
        assert shape_scores.colours_of(picture, mask) == (scene.colour, scene.ground)
        assert shape_scores.shape_of(mask) == scene.shape


def test_noise_of_a_decoder_does_no_harm(scenes, pictures):
    rng = np.random.default_rng(0)
    for scene, picture in list(zip(scenes, pictures))[:100]:
        noisy = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
        mask = shape_scores.segment(noisy)
        assert shape_scores.iou(mask, shapes.mask_of(scene, SIZE)) > 0.9
        assert shape_scores.shape_of(mask) == scene.shape


def test_pixels_elsewhere_do_not_change_which_shape_it_is(scenes):
    rng = np.random.default_rng(0)
    for scene in scenes[:100]:
        mask = shapes.mask_of(scene, SIZE)
        speckled = mask.copy()
        speckled[tuple(rng.integers(0, SIZE, (2, 3)))] = True
        assert shape_scores.shape_of(speckled) == scene.shape


def test_a_colour_without_a_name_is_none():
    scene = shapes.Scene("circle", "red", "plain", "blue", 0.5, 0.5, 0.2)
    mask = shapes.mask_of(scene, SIZE)
    picture = np.full((SIZE, SIZE, 3), (160, 160, 160), np.uint8)
    picture[mask] = (240, 120, 20)
    assert shape_scores.colours_of(picture, mask) == (None, None)
    picture[mask] = np.array(shapes.COLOURS["cyan"]) - 20
    assert shape_scores.colours_of(picture, mask) == ("cyan", None)


def test_as_much_that_is_lighter_as_that_is_darker_is_no_shape():
    picture = np.full((SIZE, SIZE, 3), 128, np.uint8)
    picture[20:30, 20:30], picture[40:50, 20:30] = 28, 228
    assert not shape_scores.segment(picture).any()


def test_an_empty_picture_has_no_shape():
    picture = np.full((SIZE, SIZE, 3), 200, np.uint8)
    mask = shape_scores.segment(picture)
    assert not mask.any() and shape_scores.shape_of(mask) is None
    assert shape_scores.colours_of(picture, mask)[0] is None
    assert shape_scores.iou(mask, mask) == 0


def test_two_shapes_are_none():
    both = np.zeros((SIZE, SIZE), bool)
    for x in (0.25, 0.75):
        scene = shapes.Scene("circle", "red", "plain", "blue", x, 0.5, 0.15)
        both |= shapes.mask_of(scene, SIZE)
    assert shape_scores.shape_of(both) is None


@pytest.mark.parametrize(
    "narrower, square, circle", [(0.85, "square", "circle"), (0.7, None, None)]
)
def test_a_shape_is_what_it_is_unless_it_is_out_of_proportion(narrower, square, circle):
    """Drawn here by formulas; 30 pixels high."""
    row, column = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    for across, down in ((column / narrower, row), (row / narrower, column)):
        assert shape_scores.shape_of(np.maximum(abs(across), abs(down)) < 15) == square
        assert shape_scores.shape_of(np.hypot(across, down) < 15) == circle


def test_rounded_corners_make_no_circle():
    row, column = abs(np.indices((SIZE, SIZE)) - (SIZE - 1) / 2)
    rounded = np.hypot(np.maximum(row - 8, 0), np.maximum(column - 8, 0)) < 6
    assert shape_scores.shape_of(rounded) == "square"


def test_intersection_over_union():
    one, other = np.zeros((2, 4, 4), bool)
    one[:2], other[1:3] = True, True
    assert shape_scores.iou(one, other) == pytest.approx(1 / 3)
