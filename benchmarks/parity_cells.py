"""The cell that `parity.py` compiles to see a prediction; apart, since it needs MindSpore."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops


class Predict(nn.Cell):
    """What a `FluxControlNetLoss` predicts, with its ControlNet or from the base model alone."""

    def __init__(self, loss: Any, with_controlnet: bool) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.with_controlnet = with_controlnet

    def construct(
        self, latents, control_latents, noise, sigmas, timesteps, weights, embeds, pooled
    ) -> Tensor:  # type: ignore[no-untyped-def]
        sigmas = sigmas.reshape((-1, 1, 1))
        noisy = (1 - sigmas) * latents + sigmas * noise
        if self.with_controlnet:
            return self.loss.predict(noisy, control_latents, timesteps, embeds, pooled)
        guidance = ops.tile(self.loss.guidance, (noisy.shape[0],))
        return self.loss.transformer(
            hidden_states=noisy,
            timestep=timesteps / 1000,
            guidance=guidance if self.loss.transformer_takes_guidance else None,
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            txt_ids=self.loss.text_ids,
            img_ids=self.loss.image_ids,
            return_dict=False,
        )[0].astype(ms.float32)
