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


SECTIONS: dict[str, type] = {
    "model": ControlNetModelSection,
    "data": ControlNetDataSection,
    "loss": LossSection,
}
