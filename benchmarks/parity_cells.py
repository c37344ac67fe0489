"""The cell that `parity.py` compiles to see a prediction; apart, since it needs MindSpore."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from flux_common.velocity import add_noise


class Predict(nn.Cell):
    """What a `FluxControlNetLoss` predicts for its own arguments.

    Args:
        loss: the loss cell.
        with_controlnet: False for the base model's own prediction.
    """

    def __init__(self, loss: Any, with_controlnet: bool) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.with_controlnet = with_controlnet

    def construct(
        self, latents, control_latents, noise, sigmas, timesteps, weights, embeds, pooled
    ) -> Tensor:
        noisy = add_noise(latents, noise, sigmas)
        control = control_latents if self.with_controlnet else None
        return self.loss.predict(noisy, control, timesteps, embeds, pooled).astype(ms.float32)
