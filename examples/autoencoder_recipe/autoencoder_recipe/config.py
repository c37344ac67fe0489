"""Configuration sections of the autoencoder recipe."""

from __future__ import annotations

from dataclasses import dataclass

from flux_common.config import ModelSection
from launcher.training.options import option


@dataclass(frozen=True)
class DataSection:
    """`data`: the images."""

    dataset_name: str = option(
        help="folder with metadata.jsonl, Parquet or Arrow files", path="local"
    )
    image_columns: list[str] = option(
        help="columns of images; each image of a row is a sample of its own, and one of a column "
        "that is named twice is two"
    )
    max_train_samples: int | None = option(None, ge=1, help="use only the first N rows")
    resolution: int = option(64, ge=16, help="side of the square that images are brought to")


@dataclass(frozen=True)
class LossSection:
    """`loss`: what an autoencoder is to be good at."""

    kl_weight: float = option(
        1e-4, ge=0, help="weight of the divergence of latents from a normal distribution"
    )


SECTIONS: dict[str, type] = {"model": ModelSection, "data": DataSection, "loss": LossSection}
