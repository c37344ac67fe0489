"""The ControlNet's samples: both images alike, or the condition made from the image."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from flux_controlnet_plugin.data import build_controlnet_dataset
from launcher.training.errors import UserError
from launcher.training.images import canny, gray, load_rgb, resize_and_crop, to_float


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for i in range(3):
        small = random.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((80, 60), Image.Resampling.NEAREST)
        picture.save(tmp_path / f"{i}.png")
        picture.resize((160, 120), Image.Resampling.NEAREST).save(tmp_path / f"c{i}.png")
        rows.append({"image": f"{i}.png", "cond": f"c{i}.png", "text": [f"a {i}", f"b {i}"]})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def build(folder, **options):
    options.setdefault("sizes", [(32, 32)])
    return build_controlnet_dataset(dataset_name=str(folder), **options)


def test_a_sample_has_target_condition_and_captions(folder):
    dataset = build(folder, conditioning_image_column="cond")
    assert len(dataset) == 3
    sample = dataset[1]
    assert sample.captions == dataset.captions(1) == ("a 1", "b 1")
    assert sample.row == 1
    for pixels, name in ((sample.target, "1.png"), (sample.condition, "c1.png")):
        assert pixels.dtype == np.float32 and pixels.shape == (3, 32, 32)
        expected = to_float(resize_and_crop(load_rgb(folder / name), 32, 32))
        np.testing.assert_array_equal(pixels, expected)


def test_both_images_show_the_same_part(folder):
    """The condition is the target at twice the size: after scaling they are almost equal."""
    sample = build(folder, conditioning_image_column="cond", sizes=[(48, 32)])[0]
    assert sample.target.shape == sample.condition.shape == (3, 48, 32)
    difference = np.abs(sample.target - sample.condition).mean()
    assert difference < 0.1
    assert difference < 0.5 * np.abs(sample.target - np.roll(sample.condition, 1, axis=2)).mean()


@pytest.mark.parametrize("name, make", [("canny", canny), ("gray", gray)])
def test_a_condition_is_made_at_the_training_resolution(folder, name, make):
    sample = build(folder, conditioning=name)[2]
    image = resize_and_crop(load_rgb(folder / "2.png"), 32, 32)
    np.testing.assert_array_equal(sample.target, to_float(image))
    np.testing.assert_array_equal(sample.condition, to_float(make(image)))


def test_edges_are_sharp(folder):
    condition = build(folder, conditioning="canny")[0].condition
    assert set(np.unique(condition)) == {-1.0, 1.0}


def test_without_control_images_their_column_is_not_looked_at(folder):
    (folder / "c1.png").unlink()
    build(folder, conditioning="blur")
    with pytest.raises(UserError, match=r"row 1 \(line 2\), column 'cond'.*no such file"):
        build(folder, conditioning_image_column="cond")
    assert len(build(folder, conditioning_image_column="cond", check=False)) == 3


def test_a_function_makes_the_control_image_from_the_resized_target(folder):
    def negative(image):
        assert image.dtype == np.uint8
        return 255 - image

    sample = build(folder, conditioning=negative)[0]
    np.testing.assert_allclose(sample.condition, -sample.target, atol=1e-6)


def test_a_function_and_a_column_are_one_too_many(folder):
    def negative(image):
        return 255 - image

    with pytest.raises(UserError, match=r"'cond', and data\.conditioning is negative"):
        build(folder, conditioning=negative, conditioning_image_column="cond")


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "there is no control image: set data.conditioning_image_column"),
        ({"conditioning": "gray", "conditioning_image_column": "cond"}, "given twice"),
        ({"conditioning": "depth"}, "'depth', and must be one of canny, gray, blur"),
        ({"conditioning": "gray", "sizes": [(112, 100)]}, "multiple of 16"),
        ({"conditioning": "gray", "image_column": "picture"}, "no column 'picture'"),
    ],
)
def test_options_that_make_no_sense(folder, options, message):
    with pytest.raises(UserError, match=message):
        build(folder, **options)


def test_with_several_sizes_each_sample_has_the_nearest_one(folder):
    for name in ("1.png", "c1.png"):
        load = Image.open(folder / name)
        load.resize((load.height, load.width)).save(folder / name)  # upright
    dataset = build(folder, conditioning_image_column="cond", sizes=[(48, 32), (32, 48)])
    assert dataset.groups.tolist() == [1, 0, 1]
    for index, (height, width) in enumerate([(32, 48), (48, 32), (32, 48)]):
        assert dataset.bucket(index) == (height, width)
        sample = dataset[index]
        assert sample.target.shape == sample.condition.shape == (3, height, width)
    without_check = build(folder, conditioning="gray", sizes=[(48, 32), (32, 48)], check=False)
    assert without_check.groups.tolist() == [1, 0, 1]
    assert build(folder, conditioning="gray").groups is None


def test_a_subclass_that_makes_something_else_of_an_image_has_keys_of_its_own(tmp_path):
    from flux_controlnet_plugin.data import ControlNetDataset
    from flux_controlnet_plugin.encode import images_of

    class Mirrored(ControlNetDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return dataclasses.replace(sample, target=sample.target[:, :, ::-1])

    plain = build_controlnet_dataset(
        dataset_name="tests/data/circles", sizes=[(32, 32)], max_train_samples=2,
        conditioning_image_column="conditioning_image",
    )  # fmt: skip
    mirrored = Mirrored(plain.table, [(32, 32)])
    ours, theirs = images_of(plain, tmp_path), images_of(mirrored, tmp_path)
    for name in ("target", "condition"):
        assert ours[name].transform != theirs[name].transform
        assert (ours[name].digests != theirs[name].digests).any()
    np.testing.assert_array_equal(theirs["target"].read(0), ours["target"].read(0)[:, :, ::-1])
    for name in ("target", "condition"):
        np.testing.assert_array_equal(ours[name].read(1), getattr(plain[1], name))
