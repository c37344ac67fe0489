"""The images of validations: which, where, and the grid; something else paints them."""

import json

import numpy as np
import pytest
from PIL import Image

from flux_controlnet_plugin import validation
from flux_controlnet_plugin.config import ImagesSection
from flux_controlnet_plugin.validation import Subject, ValidationImages
from hooks.types import Config
from launcher.sections import ValidationSection
from launcher.training.errors import UserError


class Painter:
    """Paints a grey whose brightness tells which image it is."""

    def __init__(self):
        self.seen = []

    def paint(self, embeddings, control, settings):
        self.seen.append((embeddings, settings))
        grey = 10 * len(self.seen) % 256
        return np.full((settings.height, settings.width, 3), grey, np.uint8)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "validation"


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def images(folder, painter):
    control, target = np.zeros((32, 48, 3), np.uint8), np.full((32, 48, 3), 99, np.uint8)
    subjects = [
        Subject("a red circle", ("r", "R"), control),
        Subject("", ("e", "E"), control + 1, target),
    ]
    settings = {"num_inference_steps": 4, "seed": 7}
    return ValidationImages(painter, subjects, 2, settings, folder, ["the VAE moved"])


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_and_what_they_are_of(images, folder, painter):
    assert images.paint(100) == folder / "grid.png"
    first, second = entries = json.loads((folder / "prompts.json").read_text())
    assert [entry["prompt"] for entry in entries] == ["a red circle", ""]
    assert first["target"] is None
    greys = [
        np.unique(Image.open(folder / name)).tolist()
        for name in (first["control"], second["control"], second["target"])
    ]
    assert greys == [[0], [1], [99]]
    assert names(folder) == sorted(
        [
            *("grid.png", "prompts.json", "step-000100/prompts.json"),
            *(first["control"], second["control"], second["target"]),
            *(f"step-000100/prompt-{n}.png" for n in ("0-1", "0", "1-1", "1")),
        ]
    )
    assert json.loads((folder / "step-000100/prompts.json").read_text()) == entries
    made = [(e, s.number, s.seed, s.num_inference_steps, s.height) for e, s in painter.seen]
    assert made == [
        *((("r", "R"), number, 7, 4, 32) for number in (0, 1)),
        *((("e", "E"), number, 7, 4, 32) for number in (0, 1)),
    ]


def cells(folder):
    """The greys in the middle of the grid's fields, row by row; None: nothing is there."""
    grid = np.asarray(Image.open(folder / "grid.png").convert("L"))
    height, width = 64 + 22 + 8, 128 + 8  # of a field; images of 32 x 48 are doubled
    return [
        [
            {0xDD: None}.get(grey := int(grid[top + 32, left + 48]), grey)
            for left in range(8, grid.shape[1] - 8, width)
        ]
        for top in range(8 + 22 + 22, grid.shape[0], height)
    ]


def test_what_stands_where_in_the_grid(images, folder):
    images.paint(0)
    images.paint(50)
    # Control, target, step 0, step 50; two images of either prompt.
    assert cells(folder) == [
        [0, None, 10, 50],
        [0, None, 20, 60],
        [1, 99, 30, 70],
        [1, 99, 40, 80],
    ]


def test_images_of_other_prompts_are_not_shown_as_those_of_these(images, folder, painter):
    images.paint(0)
    first, second = images._subjects
    other = Subject("a red circle", ("r", "R"), first.control + 7)  # another control
    continued = ValidationImages(painter, [second, other], 1, images._settings, folder, [])
    continued.paint(50)
    assert cells(folder) == [
        [1, 99, 30, 50],
        [1, 99, 40, None],  # of which there is one image now
        [7, None, None, 60],
    ]


@pytest.mark.parametrize("content", [None, "[", "3"])
def test_images_of_which_it_is_not_known_any_more_what_they_are_of(images, folder, content):
    images.paint(0)
    file = folder / "step-000000" / "prompts.json"
    file.unlink() if content is None else file.write_text(content)
    images.paint(50)
    assert cells(folder)[0] == [0, None, None, 50]


def test_an_image_that_is_not_finite_is_left_out_and_told_of(images, folder, painter):
    from flux_common.latents import NotFiniteError

    paint = painter.paint

    def fail(embeddings, control, settings):
        if embeddings == ("e", "E"):
            raise NotFiniteError("nothing to be seen")
        return paint(embeddings, control, settings)

    images.paint(0)
    images.news.clear()
    painter.paint = fail
    images.paint(50)
    assert cells(folder)[2:] == [[1, 99, 30, None], [1, 99, 40, None]]
    assert (
        images.news
        == ["the image of '' came out as numbers that are not finite, and is left out"] * 2
    )


def columns(folder):
    """Fields of images in the grid's first row, two of which are control and target."""
    grid = Image.open(folder / "grid.png")
    return (grid.width - 8) // (128 + 8)


def test_the_grid_has_a_column_for_each_step_up_to_this_one(images, folder):
    for step in (0, 50, 100):
        images.paint(step)
    assert columns(folder) == 2 + 3
    # Continued from step 0: what follows it was of a course that was given up.
    images.paint(50)
    assert columns(folder) == 2 + 2
    assert len(list((folder / "step-000050").glob("*.png"))) == 4


def test_of_many_steps_some_are_shown(images, folder):
    for step in range(12):
        images.paint(step)
    assert columns(folder) == 2 + 8


def test_what_is_new_is_said_once(images):
    prepared = validation.Prepared(None, images)
    assert prepared.look(1)["summary"].endswith("grid.png; the VAE moved")
    assert prepared.look(2)["summary"].endswith("grid.png")


def test_compiling_leaves_nothing_behind(images, folder, painter):
    images.compile()
    assert [s.num_inference_steps for _, s in painter.seen] == [1]  # both have one size
    assert not folder.exists()


def config(heldout=0, validation_steps=10, **options):
    wanted = ValidationSection(heldout_samples=heldout, validation_steps=validation_steps)
    return Config({"images": ImagesSection(**options), "validation": wanted})


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "edges.png"
    Image.new("RGB", (20, 10)).save(path)
    return str(path)


def test_prompts_and_control_images_belong_together(picture):
    one = ImagesSection(validation_prompt=["a", "b"], validation_image=picture)
    assert (one.prompts, one.controls) == (["a", "b"], [picture] * 2)
    other = ImagesSection(validation_prompt="a", validation_image=[picture, "x.png"])
    assert (other.prompts, other.controls) == (["a", "a"], [picture, "x.png"])
    assert list(one.problems()) == list(other.problems()) == list(ImagesSection().problems()) == []
    assert not ImagesSection().is_wanted and one.is_wanted


@pytest.mark.parametrize(
    "options, words",
    [
        ({"validation_prompt": "a"}, "validation_prompt is set and images.validation_image is not"),
        ({"validation_image": "a.png"}, "validation_image is set and images.validation_prompt is"),
        (
            {"validation_prompt": ["a", "b", "c"], "validation_image": ["x", "y"]},
            "has 3 prompts and images.validation_image has 2",
        ),
        ({"num_validation_images": 3}, "num_validation_images is 3, but no images are made"),
    ],
)
def test_what_has_no_effect_is_refused(options, words):
    assert words in " ".join(ImagesSection(**options).problems())


def test_what_is_wrong_beside_the_section(picture, tmp_path):
    assert validation.problems(config(validation_prompt="a", validation_image=picture)) == []
    (problem,) = validation.problems(config(validation_prompt="a", validation_image="no.png"))
    assert "'no.png', which cannot be used: there is no such file" in problem
    (problem,) = validation.problems(
        config(validation_steps=None, validation_prompt="a", validation_image=picture)
    )
    assert "there are no validations" in problem
    (problem,) = validation.problems(config(heldout=2, validation_samples=3))
    assert "validation.heldout_samples is 2" in problem


def test_a_control_image_is_brought_to_the_size_nearest_in_shape(picture, tmp_path):
    assert validation.read_control(picture, [(32, 32), (32, 64)]).shape == (32, 64, 3)
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(UserError, match=r"bad\.png cannot be used"):
        validation.read_control(str(tmp_path / "bad.png"), [(32, 32)])


def test_images_of_a_sample_come_back_from_floats():
    from launcher.training.images import to_float

    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(validation.from_float(to_float(image)), image)


def test_without_a_controlnet_there_are_no_images(picture):
    wanted = config(validation_prompt="a", validation_image=picture)
    with pytest.raises(UserError, match="the models of this run have none"):
        validation.images_of_run(wanted, {"transformer": None}, None, None, [])
