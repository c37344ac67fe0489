"""The quickstart's data are what its script draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.shape_scores import shapes
from flux_lora_plugin.data import build_dreambooth_dataset

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
CROSSES = {"shapes": ("cross",), "seed": 3}


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
