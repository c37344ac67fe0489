"""The cells that `parity.py` compiles to see a prediction; apart, since they need MindSpore."""

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
        self, latents, control_latents, noise, sigmas, timesteps, weights, embeds, pooled, ids
    ) -> Tensor:
        noisy = add_noise(latents, noise, sigmas)
        control = control_latents if self.with_controlnet else None
        return self.loss.predict(noisy, control, timesteps, embeds, pooled, ids).astype(ms.float32)


class PredictWithAdapters(nn.Cell):
    """What a `FluxLoraLoss` predicts for its own arguments."""

    def __init__(self, loss: Any) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss

    def construct(self, latents, noise, sigmas, timesteps, weights, embeds, text, ids) -> Tensor:
        noisy = add_noise(latents, noise, sigmas)
        return self.loss.predict(noisy, timesteps, embeds, text, ids).astype(ms.float32)
