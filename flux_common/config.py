"""Configuration sections that the FLUX recipes share. Names are those of diffusers' scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from flux_common.flow_matching import WeightingScheme
from launcher.training.buckets import problems as bucket_problems
from launcher.training.cache.options import CacheOptions
from launcher.training.options import option

#: Heights and widths are multiples of it: the VAE reduces by 8, and packing by 2.
MULTIPLE = 16
#: Side of the images where nothing else is asked for.
DEFAULT_RESOLUTION = 512


@dataclass(frozen=True)
class ModelSection:
    """`model`: where the pretrained parts come from."""

    pretrained_model_name_or_path: str = option(
        help="FLUX.1 pipeline: a local folder in diffusers' layout or a hub name",
        resume="content",
        path="or_hub",
    )
    revision: str | None = option(
        None, help="branch, tag or commit of a hub repository", resume="content"
    )
    variant: str | None = option(None, help="weight file variant, such as bf16", resume="content")
    gradient_checkpointing: bool = option(
        False,
        help="recompute activations in the backward pass: less memory, more time",
        resume="continues",
    )


@dataclass(frozen=True)
class DataSection(CacheOptions):
    """`data`: images and captions."""

    #: The options that say where the data are, of which one is given.
    sources: ClassVar[tuple[str, ...]] = ("dataset_name", "jsonl_for_train")

    dataset_name: str | None = option(
        None,
        help="folder with metadata.jsonl, Parquet or Arrow files, or a hub name",
        resume="content",
        path="or_hub",
    )
    dataset_config_name: str | None = option(
        None, help="configuration of a hub data set", resume="content"
    )
    jsonl_for_train: str | None = option(
        None,
        help="JSONL file, one sample a line, with paths relative to the file",
        resume="content",
        path="local",
    )
    image_column: str = option("image", help="column of the target image", resume="content")
    caption_column: str = option(
        "text", help="column of the caption, a string or a list", resume="content"
    )
    max_train_samples: int | None = option(None, ge=1, help="use only the first N samples")
    resolution: int | list[int] | None = option(
        None,
        help="side of the square images, or [height, width]; multiples of 16; null: 512, unless "
        "there are buckets",
    )
    buckets: list[list[int]] | None = option(
        None,
        help="in place of resolution: sizes [[height, width], ...], multiples of 16; each image "
        "is trained at the one whose aspect ratio is nearest",
    )
    max_sequence_length: int = option(512, ge=1, le=512, help="T5 tokens per caption")

    def problems(self) -> Iterable[str]:
        """Checks across options."""
        sides = list(self.sizes[0]) if isinstance(self.resolution, int) else self.resolution
        if self.buckets is not None:
            yield from bucket_problems(self.buckets, "data.buckets", MULTIPLE)
            if self.resolution is not None:
                yield (
                    f"data.resolution is {self.resolution} (one size for all images) and "
                    f"data.buckets is {self.buckets} (several); set one of them to null"
                )
        elif sides is None:
            pass
        elif len(sides) != 2:
            yield f"data.resolution is {self.resolution}; give one number or [height, width]"
        elif any(side <= 0 or side % MULTIPLE for side in sides):
            below = [max(MULTIPLE, side // MULTIPLE * MULTIPLE) for side in sides]
            near = below[0] if isinstance(self.resolution, int) else below
            yield (
                f"data.resolution is {self.resolution}; the VAE and the 2x2 packing need "
                f"multiples of {MULTIPLE}, such as {near}"
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
        names = ("dataset_name", "dataset_config_name", "jsonl_for_train", "max_train_samples")
        cache_dir = None if self.cache_dir is None else str(self.cache_root / "datasets")
        return {name: getattr(self, name) for name in names} | {"cache_dir": cache_dir}

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) in pixels: what images are trained at; several: each at the nearest."""
        if self.buckets is not None:
            return tuple((height, width) for height, width in self.buckets)
        resolution = DEFAULT_RESOLUTION if self.resolution is None else self.resolution
        if isinstance(resolution, int):
            return ((resolution, resolution),)
        height, width = resolution
        return ((height, width),)


@dataclass(frozen=True)
class LossSection:
    """`loss`: how timesteps are drawn and the loss is weighted."""

    weighting_scheme: WeightingScheme = option(
        "logit_normal",
        help="density of the timesteps (logit_normal, mode) or weight of the loss (cosmap, "
        "sigma_sqrt; timesteps uniform), as in the SD3 paper",
        resume="continues",
    )
    logit_mean: float = option(0.0, help="mean of logit_normal", resume="continues")
    logit_std: float = option(
        1.0, gt=0, help="standard deviation of logit_normal", resume="continues"
    )
    mode_scale: float = option(1.29, help="scale of mode", resume="continues")
    guidance_scale: float = option(
        3.5, ge=0, help="guidance that a guidance-distilled model is told", resume="continues"
    )
    proportion_empty_prompts: float = option(
        0.0,
        ge=0,
        le=1,
        help="share of captions replaced by the empty one, drawn anew each step",
        resume="continues",
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
    return {
        "text_length": data.max_sequence_length,
        "guidance_scale": loss.guidance_scale,
    }


#: Options that shape the density of one scheme.
_SHAPES = {"logit_mean": "logit_normal", "logit_std": "logit_normal", "mode_scale": "mode"}
