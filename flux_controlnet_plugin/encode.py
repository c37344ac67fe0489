"""What has to be encoded of a ControlNet data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_common.encodings import RESIZED, Images, made_images, stored_images
from flux_controlnet_plugin.data import ControlNetDataset
from launcher.training.images import BLUR_SIGMA, CANNY_THRESHOLDS, blur, canny, gray

if TYPE_CHECKING:
    import numpy as np

TARGET, CONDITION = "target", "condition"

#: What is done to the target by the functions of `launcher.training.images`.
_MADE_BY: dict[Any, str] = {
    canny: f"canny {CANNY_THRESHOLDS}",
    gray: "gray 0.299 0.587 0.114",
    blur: f"blur {BLUR_SIGMA} of the shorter side",
}


def images_of(dataset: Any, memory: Path | None) -> dict[str, Images]:
    """The target and control images of a data set.

    Args:
        dataset: samples with `target` and `condition`, float32 `[3, H, W]`. Of a
            `ControlNetDataset` it is known how they come about; those of any other are told apart
            by their pixels, and so are control images that a function of the user's own makes.
        memory: folder to remember the digests of files in.
    """
    if type(dataset) is not ControlNetDataset:  # a subclass may make something else of an image
        return {
            name: made_images(len(dataset), partial(_read, dataset, name))
            for name in (TARGET, CONDITION)
        }
    read = {TARGET: dataset.target, CONDITION: dataset.condition}
    table = dataset.table
    sizes = dataset.buckets.all_sizes(len(dataset))
    target, *control = table.image_columns
    images = {TARGET: stored_images(table, target, sizes, read[TARGET], memory)}
    if control:
        images[CONDITION] = stored_images(table, control[0], sizes, read[CONDITION], memory)
    elif dataset.conditioning in _MADE_BY:
        transform = f"{RESIZED}, {_MADE_BY[dataset.conditioning]}"
        images[CONDITION] = Images(images[TARGET].digests, transform, sizes, read[CONDITION])
    else:
        images[CONDITION] = made_images(len(dataset), read[CONDITION])
    return images


def _read(dataset: Any, name: str, row: int) -> np.ndarray:
    image: np.ndarray = getattr(dataset[row], name)
    return image
