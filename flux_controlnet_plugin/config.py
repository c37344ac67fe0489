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
        None, help="ControlNet to go on training; null: make one from the transformer"
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

    conditioning_image_column: str | None = option(None, help="column of the control image")
    conditioning: Literal["canny", "gray", "blur"] | None = option(
        None, help="make the control image from the target instead of reading it"
    )

    def problems(self) -> Iterable[str]:
        """Checks across options."""
        yield from super().problems()
        if (self.conditioning_image_column is None) == (self.conditioning is None):
            given = "neither is" if self.conditioning is None else "both are"
            yield (
                "exactly one of data.conditioning_image_column (read control images) and "
                f"data.conditioning (make them: canny, gray, blur) is needed; {given} set"
            )


SECTIONS: dict[str, type] = {
    "model": ControlNetModelSection,
    "data": ControlNetDataSection,
    "loss": LossSection,
}
