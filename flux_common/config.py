"""Configuration sections that the FLUX recipes share. Names are those of diffusers' scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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

    dataset_name: str | None = option(
        None, ask=True, help="folder with metadata.jsonl, Parquet or Arrow files, or a hub name"
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
        if (self.dataset_name is None) == (self.jsonl_for_train is None):
            given = "neither is" if self.dataset_name is None else "both are"
            yield (
                f"exactly one of data.dataset_name and data.jsonl_for_train is needed; {given} set"
            )

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


#: Options that shape the density of one scheme.
_SHAPES = {"logit_mean": "logit_normal", "logit_std": "logit_normal", "mode_scale": "mode"}
