"""Train a small convolutional network to remove noise from images.

launcher --recipe tiny_denoiser --config my_run.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hooks import hookimpl
from hooks.types import CollateFn, Config, Draws, MicroBatch, Models, Stage

# Hook implementations import what they need when they are called: `launcher hooks`, and mistakes
# in the configuration, need not wait for MindSpore.

EXPORT = "denoiser"  # folder of the weights in the run's output directory


@hookimpl
def config_sections() -> dict[str, type]:
    from tiny_denoiser.config import SECTIONS

    return SECTIONS


@hookimpl
def check_config(config: Config) -> list[str]:
    seen, side = 2 * config.model.depth + 1, config.data.resolution
    if seen <= side:
        return []
    return [
        f"model.depth is {config.model.depth}: a pixel then depends on {seen} x {seen} others, "
        f"more than there are at data.resolution={side}. Set model.depth to at most "
        f"{(side - 1) // 2}, or raise data.resolution."
    ]


@hookimpl
def build_dataset(config: Config) -> Any:
    from launcher.training.dataset import ImageTextTable
    from launcher.training.image_folder import open_image_folder

    data = config.data
    table = open_image_folder(data.image_dir, "data.image_dir", data.max_train_samples)
    images = ImageTextTable(table, caption_column=None)
    images.check()
    return images


@hookimpl
def build_models(config: Config, stage: Stage) -> Models:
    import mindspore as ms

    from tiny_denoiser.model import Denoiser

    if stage == "precompute":  # nothing to encode with
        return Models()
    ms.set_seed(config.train.seed)  # of the initial weights
    return Models(denoiser=Denoiser(config.model.width, config.model.depth))


@hookimpl
def configure_trainable(models: Models) -> Models:
    from launcher.training.freeze import set_trainable

    set_trainable(models["denoiser"], True)
    return models


@hookimpl
def build_collate_fn(config: Config, dataset: Any) -> CollateFn:
    import numpy as np

    from launcher.training.images import resize_and_crop, to_float

    side, low, high = config.data.resolution, config.noise.sigma_min, config.noise.sigma_max

    def collate(indices: Sequence[int], draws: Draws) -> MicroBatch:
        images = [resize_and_crop(dataset.image(i, "image"), side, side) for i in indices]
        sigma = low + (high - low) * draws.uniform("sigma").astype(np.float32)
        noise = sigma[:, None, None, None] * draws.normal("noise", (3, side, side))
        return np.stack([to_float(image) for image in images]) + noise, noise

    return collate


@hookimpl
def build_loss(models: Models) -> Any:
    from tiny_denoiser.model import DenoisingLoss

    return DenoisingLoss(models["denoiser"])


@hookimpl
def export_weights(config: Config, models: Models, directory: Path, values: Any) -> list[Path]:
    from launcher.training import atomic
    from launcher.training.weights import write_parameters

    with atomic.folder(directory / EXPORT, replace=True) as work:
        parameters = dict(models["denoiser"].parameters_and_names())
        dtype = config.checkpoint.save_weight_dtype
        write_parameters(work / "model.safetensors", parameters, dtype=dtype, values=values)
    return [directory / EXPORT / "model.safetensors"]
