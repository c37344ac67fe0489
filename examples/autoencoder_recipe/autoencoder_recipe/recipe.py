"""Train the autoencoder of a FLUX pipeline on images of one size.

launcher --recipe autoencoder model.pretrained_model_name_or_path=PIPELINE data.dataset_name=DATA
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hooks import hookimpl
from hooks.types import CollateFn, Config, Draws, MicroBatch, Models, Stage

EXPORT = "vae"  # folder of the weights in the run's output directory


@hookimpl
def config_sections() -> dict[str, type]:
    from autoencoder_recipe.config import SECTIONS

    return SECTIONS


@hookimpl
def check_config(config: Config) -> list[str]:
    from flux_common import pipeline_folder

    model, side = config.model, config.data.resolution
    found = pipeline_folder.problems(
        model.pretrained_model_name_or_path, ["vae"], model.revision, model.variant
    )
    if not config.data.image_columns:
        found.append("data.image_columns is empty: name at least one column of images.")
    if side % 8:
        found.append(
            f"data.resolution is {side}; the autoencoder reduces images by 8: give a multiple of "
            f"it, such as {side // 8 * 8}."
        )
    if config.precision.mixed_precision != "no":
        found.append(
            f"precision.mixed_precision is {config.precision.mixed_precision}; the autoencoder is "
            'trained in float32: set it to "no".'
        )
    return found


@hookimpl
def build_dataset(config: Config) -> Any:
    from launcher.training.dataset import ImageTextTable, open_table

    data = config.data
    table = open_table(dataset_name=data.dataset_name, max_train_samples=data.max_train_samples)
    columns = list(dict.fromkeys(data.image_columns))
    for column in columns:  # by itself: the images of a row may differ in their aspect ratio
        ImageTextTable(table, image_columns=[column], caption_column=None).check()
    rows = ImageTextTable(table, image_columns=columns, caption_column=None)
    return _Images(rows, data.image_columns)


class _Images:
    """All images of all rows, one after the other."""

    def __init__(self, rows: Any, columns: Sequence[str]) -> None:
        self._rows = rows
        self._columns = columns

    def __len__(self) -> int:
        return len(self._rows) * len(self._columns)

    def __getitem__(self, index: int) -> Any:
        row, column = divmod(index, len(self._columns))
        return self._rows.image(row, self._columns[column])


@hookimpl
def build_models(config: Config, stage: Stage) -> Models:
    from flux_common import loading
    from launcher.training.errors import UserError

    if stage == "precompute":  # nothing to encode with
        return Models()
    model = config.model
    with loading.deferred():
        vae = loading.load_vae(
            model.pretrained_model_name_or_path, revision=model.revision, variant=model.variant
        )
    if vae.config.use_quant_conv or vae.config.use_post_quant_conv:
        raise UserError(
            f"the VAE of {model.pretrained_model_name_or_path} has a convolution between encoder "
            "and latents (use_quant_conv, use_post_quant_conv), as Stable Diffusion's, which this "
            "recipe would not train. Give a pipeline with FLUX.1's VAE."
        )
    return Models(vae=vae)


@hookimpl
def configure_trainable(models: Models) -> Models:
    from launcher.training.freeze import set_trainable

    set_trainable(models["vae"], True)
    return models


@hookimpl
def build_collate_fn(config: Config, models: Models, dataset: Any) -> CollateFn:
    import numpy as np

    from launcher.training.images import resize_and_crop, to_float

    side = config.data.resolution
    latents = (models["vae"].config.latent_channels, side // 8, side // 8)

    def collate(indices: Sequence[int], draws: Draws) -> MicroBatch:
        images = [to_float(resize_and_crop(dataset[index], side, side)) for index in indices]
        return np.stack(images), draws.normal("noise of the latents", latents)

    return collate


@hookimpl
def build_loss(config: Config, models: Models) -> Any:
    from autoencoder_recipe.loss import AutoencoderLoss

    return AutoencoderLoss(models["vae"], config.loss.kl_weight)


@hookimpl
def export_weights(config: Config, models: Models, directory: Path, values: Any) -> list[Path]:
    from flux_common.export import export_model

    dtype = config.checkpoint.save_weight_dtype
    return export_model(models["vae"], directory / EXPORT, dtype=dtype, values=values)
