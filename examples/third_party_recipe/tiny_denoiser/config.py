"""Configuration sections of the denoiser recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from launcher.training.options import option


@dataclass(frozen=True)
class DataSection:
    """`data`: the images."""

    image_dir: str = option(help="folder of images", path="local")
    max_train_samples: int | None = option(None, ge=1, help="use only the first N images")
    resolution: int = option(64, ge=8, help="side of the square that images are brought to")


@dataclass(frozen=True)
class ModelSection:
    """`model`: size of the network."""

    width: int = option(32, ge=1, help="channels of the hidden layers")
    depth: int = option(6, ge=2, help="convolutions of 3 x 3")


@dataclass(frozen=True)
class NoiseSection:
    """`noise`: how strong it is, where pixels reach from -1 to 1."""

    sigma_min: float = option(0.0, ge=0, help="least standard deviation")
    sigma_max: float = option(0.5, gt=0, help="greatest; each sample's is drawn between the two")

    def problems(self) -> Iterable[str]:
        """Checks across options of this section."""
        if self.sigma_min > self.sigma_max:
            yield (
                f"noise.sigma_min is {self.sigma_min} and noise.sigma_max {self.sigma_max}; the "
                "first must not be the greater"
            )


SECTIONS: dict[str, type] = {"data": DataSection, "model": ModelSection, "noise": NoiseSection}
