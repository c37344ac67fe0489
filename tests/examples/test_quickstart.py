"""The quickstart's data are what its script draws, and what is scored is in none of them."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "tiny_flux"))

import make

from benchmarks.scoring import SEED, held_out
from benchmarks.shape_scores import shapes
from flux_lora_plugin.data import build_dreambooth_dataset

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
PAIRS = {"size": 64, "seed": 0, "condition": "outline", "shapes": shapes.KNOWN_SHAPES}
CROSSES = {"shapes": ("cross",), "seed": 3}


@pytest.fixture(scope="module")
def pairs():
    return pyarrow.parquet.read_table(QUICKSTART / "data" / "train.parquet").to_pylist()


def pixels_of(image) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image["bytes"])))


def digest(picture) -> bytes:
    return hashlib.sha256(picture.tobytes()).digest()


def test_the_pairs_are_drawn_by_the_script(pairs):
    assert len(pairs) == 2048
    for row, (picture, control, caption) in zip(pairs, shapes.draw_samples(2048, **PAIRS)):
        assert row["text"] == caption
        assert np.array_equal(pixels_of(row["image"]), picture)
        assert np.array_equal(pixels_of(row["conditioning_image"]), control)


def test_the_lora_recipe_reads_the_crosses():
    dataset = build_dreambooth_dataset(
        source={"dataset_name": str(QUICKSTART / "crosses"), "max_train_samples": None},
        caption_column="text",
        sizes=[(64, 64)],
    )
    assert len(dataset) == 8
    for index in range(8):
        scene = shapes.draw_scene(index, **CROSSES)
        sample = dataset[index]
        assert sample.captions == (scene.caption,)
        pixels = (np.moveaxis(sample.images["instance"], 0, 2) + 1) * 127.5
        np.testing.assert_allclose(pixels, shapes.picture_of(scene, 64), atol=1e-3)


def test_no_picture_that_is_scored_was_trained_on(pairs):
    """As pixels: scenes that differ by little can be the same picture."""
    scored = {digest(shapes.picture_of(scene, 64)) for scene in held_out(1000, 64, "outline")[0]}
    crosses = held_out(1000, 64, "outline", ["cross"])[0]
    scored |= {digest(shapes.picture_of(scene, 64)) for scene in crosses}
    assert len(scored) == 2000
    assert SEED not in (make.DATA_SEED, PAIRS["seed"], CROSSES["seed"])
    base = (shapes.draw_scene(index, make.DATA_SEED) for index in range(make.SAMPLES))
    trained = {digest(shapes.picture_of(scene, 64)) for scene in base}
    trained |= {digest(pixels_of(row["image"])) for row in pairs}
    trained |= {
        digest(np.asarray(Image.open(f))) for f in (QUICKSTART / "crosses/images").iterdir()
    }
    assert len(trained) > make.SAMPLES
    assert not scored & trained
