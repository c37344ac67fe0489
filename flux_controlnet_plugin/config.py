"""Configuration sections of the ControlNet recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from flux_common.config import DataSection, LossSection, ModelSection
from launcher.training.options import option


@dataclass(frozen=True)
class ControlNetModelSection(ModelSection):
    """`model`: the pretrained parts, and where the ControlNet comes from."""

    controlnet_model_name_or_path: str | None = option(
        None,
        help="ControlNet to go on training; null: make one from the transformer",
        resume="content",
        path="or_hub",
    )
    num_double_layers: int = option(
        4, ge=1, help="double-stream blocks of a ControlNet made from the transformer"
    )
    num_single_layers: int = option(
        4, ge=0, help="single-stream blocks of a ControlNet made from the transformer"
    )


@dataclass(frozen=True)
class ControlNetDataSection(DataSection):
    """`data`: images, captions and control images."""

    asks: ClassVar[tuple[str, ...]] = ("dataset_name", "conditioning_image_column")

    conditioning_image_column: str | None = option(
        None, help="column of the control image", resume="content"
    )
    conditioning: Literal["canny", "gray", "blur"] | None = option(
        None, help="make the control image from the target instead of reading it"
    )

    def problems(self) -> Iterable[str]:
        """Checks across options."""
        yield from super().problems()
        # With neither, a variant may have control images of its own: `build_dataset` tells.
        if self.conditioning_image_column is not None and self.conditioning is not None:
            yield (
                f"data.conditioning_image_column is {self.conditioning_image_column!r} (read "
                f"control images) and data.conditioning is {self.conditioning!r} (make them); "
                f"leave out one of them"
            )


@dataclass(frozen=True)
class ImagesSection:
    """`images`: what validations make images of."""

    validation_prompt: str | list[str] | None = option(
        None, help="prompt, or several, to make images of at each validation", resume="free"
    )
    validation_image: str | list[str] | None = option(
        None,
        help="control image file of the prompts: one for all, or one each; brought to the size of "
        "the data",
        resume="free",
        path="local",
    )
    validation_samples: int = option(
        0, ge=0, help="held-out samples to make images of, the first ones", resume="free"
    )
    num_validation_images: int = option(
        1, ge=1, help="images of each, of different noise", resume="free"
    )
    validation_inference_steps: int = option(
        28, ge=1, help="steps that an image is made in", resume="free"
    )
    validation_guidance_scale: float = option(
        3.5, ge=0, help="guidance that a guidance-distilled model is told", resume="free"
    )
    controlnet_conditioning_scale: float = option(
        1.0, help="what the ControlNet's outputs are multiplied by", resume="free"
    )
    validation_vae: Literal["auto", "memory", "process"] = option(
        "auto",
        help="where the VAE is. memory: in that of the training; process: in a process of its own "
        "on the CPU, which is slower; auto: in memory until that does not suffice",
        resume="free",
    )

    @property
    def is_wanted(self) -> bool:
        """Whether there are images to make."""
        return bool(self.prompts) or self.validation_samples > 0

    @property
    def prompts(self) -> list[str]:
        """Those of `validation_prompt`; a single one is repeated for several control images."""
        given = _listed(self.validation_prompt)
        return given * len(self.controls) if len(given) == 1 and self.controls else given

    @property
    def controls(self) -> list[str]:
        """Paths of `validation_image`, one a prompt; a single one is repeated."""
        given = _listed(self.validation_image)
        return given * len(_listed(self.validation_prompt)) if len(given) == 1 else given

    @property
    def settings(self) -> dict[str, float]:
        """The arguments of `flux_controlnet_plugin.images.Settings` that are options."""
        return {
            "num_inference_steps": self.validation_inference_steps,
            "guidance_scale": self.validation_guidance_scale,
            "controlnet_conditioning_scale": self.controlnet_conditioning_scale,
        }

    def problems(self) -> Iterable[str]:
        """Prompts without control images, and the other way round."""
        prompts, controls = _listed(self.validation_prompt), _listed(self.validation_image)
        if bool(prompts) != bool(controls):
            there, lacking = ("image", "prompt") if controls else ("prompt", "image")
            yield (
                f"images.validation_{there} is set and images.validation_{lacking} is not; a "
                "ControlNet makes an image of both"
            )
        elif len(self.prompts) != len(self.controls):
            yield (
                f"images.validation_prompt has {len(prompts)} prompts and images.validation_image "
                f"has {len(controls)} control images; give as many, or one of either"
            )
        if not self.is_wanted:
            for name in type(self).__dataclass_fields__:
                value = getattr(self, name)
                if value != getattr(type(self), name) and name != "validation_image":
                    yield (
                        f"images.{name} is {value}, but no images are made: set "
                        "images.validation_prompt and images.validation_image, or "
                        "images.validation_samples"
                    )


def _listed(value: str | list[str] | None) -> list[str]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


SECTIONS: dict[str, type] = {
    "model": ControlNetModelSection,
    "data": ControlNetDataSection,
    "loss": LossSection,
    "images": ImagesSection,
}
