"""Configuration sections of the LoRA recipe. Names are those of diffusers' DreamBooth script."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from flux_common.config import DataSection, LossSection, ModelSection
from flux_common.flow_matching import WeightingScheme
from launcher.training.options import option

#: diffusers' script before 0.31, and the setting that MindONE's follows.
DEFAULT_LAYERS = "to_k,to_q,to_v,to_out.0"


@dataclass(frozen=True)
class LoraModelSection(ModelSection):
    """`model`: the pretrained parts, and their adapters."""

    rank: int = option(4, ge=1, help="rank of the adapters")
    lora_alpha: int | None = option(
        None, ge=1, help="adapters are scaled by lora_alpha / rank; null: equal to rank"
    )
    lora_layers: str | list[str] = option(
        DEFAULT_LAYERS,
        help="target_modules: layers of the transformer that get an adapter, by the ends of "
        "their names; a list, or separated by commas",
    )
    train_text_encoder: bool = option(False, help="adapters on CLIP's attention too")
    lora_weights: str | None = option(
        None,
        help="LoRA to go on training, a file or the folder of a run: it brings rank, lora_alpha "
        "and layers; null: new adapters",
        resume="content",
        path="local",
    )

    @property
    def targets(self) -> list[str]:
        """`lora_layers` as a list."""
        given = self.lora_layers
        names = given.split(",") if isinstance(given, str) else given
        return [name.strip() for name in names if name.strip()]

    @property
    def asked(self) -> dict[str, Any]:
        """Rank, scale and layers, where they are not the defaults; else None."""
        rank = None if self.rank == type(self).rank else self.rank
        targets = None if self.lora_layers == DEFAULT_LAYERS else self.targets
        return {"rank": rank, "lora_alpha": self.lora_alpha, "targets": targets}

    def problems(self) -> Iterable[str]:
        """No layers at all."""
        if not self.targets:
            yield f"model.lora_layers is {self.lora_layers!r}; name at least one layer"


@dataclass(frozen=True)
class LoraDataSection(DataSection):
    """`data`: images of the subject, their captions, and images of its class."""

    sources: ClassVar[tuple[str, ...]] = ("instance_data_dir", *DataSection.sources)

    asks: ClassVar[tuple[str, ...]] = ("instance_data_dir", "instance_prompt")

    instance_data_dir: str | None = option(
        None, help="folder of images of the subject", resume="content", path="local"
    )
    instance_prompt: str | None = option(
        None, help="caption of every image that has none of its own", resume="content"
    )
    caption_column: str | None = option(
        None, help="column of the captions; null: instance_prompt for all", resume="content"
    )
    with_prior_preservation: bool = option(
        False, help="train on images of the class beside those of the subject, so that it stays"
    )
    class_data_dir: str | None = option(
        None,
        help="folder of the class images; those that are missing are made there",
        resume="content",
        path="local",
    )
    class_prompt: str | None = option(None, help="caption of the class images", resume="content")
    num_class_images: int = option(100, ge=1, help="class images to train on")
    sample_batch_size: int = option(4, ge=1, help="class images made at a time", resume="free")
    num_inference_steps: int = option(28, ge=1, help="denoising steps of a class image")

    def problems(self) -> Iterable[str]:
        """Checks across options."""
        yield from super().problems()
        if self.instance_prompt is None and self.caption_column is None:
            yield (
                "data.instance_prompt (one caption for all images) or data.caption_column (the "
                "data set's own) is needed; neither is set"
            )
        for name in ("instance_prompt", "class_prompt"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                yield f"data.{name} is empty; describe the image, such as 'a photo of sks dog'"
        needed = ("class_data_dir", "class_prompt")
        if self.with_prior_preservation:
            if self.buckets is not None:
                yield (
                    "data.buckets is set and data.with_prior_preservation is true: the class "
                    "images are made at one size, and share their batches with the subject's; "
                    "give data.resolution instead of data.buckets"
                )
            for name in needed:
                if getattr(self, name) is None:
                    yield f"data.with_prior_preservation is true, which needs data.{name}"
            return
        for name in (*needed, "num_class_images", "sample_batch_size", "num_inference_steps"):
            value = getattr(self, name)
            if value != getattr(type(self), name):
                yield (
                    f"data.{name} is {value!r}, which is used only with "
                    f"data.with_prior_preservation=true"
                )

    @property
    def class_images(self) -> dict[str, Any] | None:
        """Where the class images are and how many; None without prior preservation."""
        if not self.with_prior_preservation:
            return None
        names = ("class_data_dir", "class_prompt", "num_class_images")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LoraLossSection(LossSection):
    """`loss`: how timesteps are drawn and the loss is weighted."""

    weighting_scheme: WeightingScheme = option(
        "none",
        help="density of the timesteps (logit_normal, mode) or weight of the loss (cosmap, "
        "sigma_sqrt; timesteps uniform), as in the SD3 paper; none: neither",
        resume="continues",
    )
    prior_loss_weight: float = option(
        1.0, ge=0, help="weight of the class images' loss", resume="continues"
    )


SECTIONS: dict[str, type] = {
    "model": LoraModelSection,
    "data": LoraDataSection,
    "loss": LoraLossSection,
}
