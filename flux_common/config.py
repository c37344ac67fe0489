"""Configuration sections that the FLUX recipes share. Names are those of diffusers' scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from flux_common.flow_matching import WeightingScheme
from launcher.training.options import option


@dataclass(frozen=True)
class ModelSection:
    """`model`: where the pretrained parts come from."""

    pretrained_model_name_or_path: str = option(
        help="FLUX.1 pipeline: a local folder in diffusers' layout or a hub name"
    )
    revision: str | None = option(None, help="branch, tag or commit of a hub repository")
    variant: str | None = option(None, help="weight file variant, such as bf16")
    gradient_checkpointing: bool = option(
        False, help="recompute activations in the backward pass: less memory, more time"
    )


@dataclass(frozen=True)
class DataSection:
    """`data`: images and captions."""

    #: The options that say where the data are, of which one is given.
    sources: ClassVar[tuple[str, ...]] = ("dataset_name", "jsonl_for_train")

    dataset_name: str | None = option(
        None, help="folder with metadata.jsonl, Parquet or Arrow files, or a hub name"
    )
    dataset_config_name: str | None = option(None, help="configuration of a hub data set")
    jsonl_for_train: str | None = option(
        None, help="JSONL file, one sample a line, with paths relative to the file"
    )
    cache_dir: str | None = option(None, help="where `datasets` keeps downloads")
    image_column: str = option("image", help="column of the target image")
    caption_column: str = option("text", help="column of the caption, a string or a list")
    max_train_samples: int | None = option(None, ge=1, help="use only the first N samples")
    resolution: int | list[int] = option(
        512, help="side of the square images, or [height, width]; multiples of 16"
    )
    max_sequence_length: int = option(512, ge=1, le=512, help="T5 tokens per caption")

    def problems(self) -> Iterable[str]:
        """Checks across options."""
        sides = [self.resolution] if isinstance(self.resolution, int) else self.resolution
        if len(sides) not in (1, 2) or (len(sides) == 1 and not isinstance(self.resolution, int)):
            yield f"data.resolution is {self.resolution}; give one number or [height, width]"
        elif any(side <= 0 or side % 16 for side in sides):
            below = [max(16, side // 16 * 16) for side in sides]
            near = below[0] if isinstance(self.resolution, int) else below
            yield (
                f"data.resolution is {self.resolution}; the VAE and the 2x2 packing need "
                f"multiples of 16, such as {near}"
            )
        given = [name for name in self.sources if getattr(self, name) is not None]
        if len(given) != 1:
            two = len(self.sources) == 2
            some = "both are" if two else f"{' and '.join(given)} are"
            none = "neither is" if two else "none is"
            *names, last = (f"data.{name}" for name in self.sources)
            yield (
                f"exactly one of {', '.join(names)} and {last} is needed; "
                f"{some if given else none} set"
            )

    @property
    def source(self) -> dict[str, Any]:
        """The arguments of `launcher.training.tables.open_table`."""
        names = (
            "dataset_name", "dataset_config_name", "jsonl_for_train", "cache_dir",
            "max_train_samples",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if isinstance(self.resolution, int):
            return self.resolution, self.resolution
        height, width = self.resolution
        return height, width


@dataclass(frozen=True)
class LossSection:
    """`loss`: how timesteps are drawn and the loss is weighted."""

    weighting_scheme: WeightingScheme = option(
        "logit_normal",
        help="density of the timesteps (logit_normal, mode) or weight of the loss (cosmap, "
        "sigma_sqrt; timesteps uniform), as in the SD3 paper",
    )
    logit_mean: float = option(0.0, help="mean of logit_normal")
    logit_std: float = option(1.0, gt=0, help="standard deviation of logit_normal")
    mode_scale: float = option(1.29, help="scale of mode")
    guidance_scale: float = option(
        3.5, ge=0, help="guidance that a guidance-distilled model is told"
    )
    proportion_empty_prompts: float = option(
        0.0, ge=0, le=1, help="share of captions replaced by the empty one, drawn anew each step"
    )

    def problems(self) -> Iterable[str]:
        """Options that the chosen scheme would ignore."""
        for name, scheme in _SHAPES.items():
            value = getattr(self, name)
            if value != getattr(type(self), name) and self.weighting_scheme != scheme:
                yield (
                    f"loss.{name} is {value}, which only the scheme {scheme} uses; "
                    f"loss.weighting_scheme is {self.weighting_scheme}"
                )

    @property
    def density(self) -> dict[str, Any]:
        """The arguments of `flux_common.collate.Timesteps`."""
        return {name: getattr(self, name) for name in ("weighting_scheme", *_SHAPES)}


def network_inputs(data: DataSection, loss: LossSection) -> dict[str, Any]:
    """The arguments of `flux_common.velocity.NetworkCall` that the configuration settles."""
    height, width = data.size
    return {
        "size": (height // 16, width // 16),
        "text_length": data.max_sequence_length,
        "guidance_scale": loss.guidance_scale,
    }


#: Options that shape the density of one scheme.
_SHAPES = {"logit_mean": "logit_normal", "logit_std": "logit_normal", "mode_scale": "mode"}
