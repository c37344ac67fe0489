"""The quickstart's data are what its script makes, and can be trained on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flux_controlnet_plugin.data import build_controlnet_dataset

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_data", QUICKSTART / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_data_are_what_the_script_makes(script, tmp_path):
    script.make_data(tmp_path)
    made = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    data = QUICKSTART / "data"
    assert made == {p.relative_to(data) for p in data.rglob("*") if p.is_file()}
    for name in made:
        if name.suffix == ".png":  # the pixels: compression differs between versions
            np.testing.assert_array_equal(
                np.array(Image.open(tmp_path / name)), np.array(Image.open(data / name))
            )
        else:
            assert (tmp_path / name).read_text() == (data / name).read_text()


def test_a_sample_is_what_its_caption_says(script):
    for index in range(64):
        picture, condition, caption = script.make_sample(index)
        circle, ground = caption.removesuffix(" background").split(" circle with ")
        y, x = (round(places.mean()) for places in np.nonzero(condition[..., 0]))
        assert tuple(picture[y, x]) == script.COLOURS[circle]
        assert tuple(picture[0, 0]) == script.COLOURS[ground]
        assert not condition[y, x].any()  # an outline, not a disc


def test_the_recipe_reads_them():
    dataset = build_controlnet_dataset(
        dataset_name=str(QUICKSTART / "data"),
        conditioning_image_column="conditioning_image",
        sizes=[(64, 64)],
    )
    assert len(dataset) == 64
    assert dataset[0].target.shape == dataset[0].condition.shape == (3, 64, 64)
    assert dataset[0].captions == ("deep sky blue circle with lime green background",)


def test_the_folder_stays_small():
    sizes = [p.stat().st_size for p in (QUICKSTART / "data").rglob("*") if p.is_file()]
    assert sum(sizes) < 400_000
