"""What every FLUX loss is made of: the noisy input, the networks' call, the weighted error.

A network is shown `(1 - sigma) * latents + sigma * noise` and predicts the velocity
`noise - latents` (see `flux_common.flow_matching`). Everything here is compiled as part of a loss
cell.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from flux_common.latents import text_ids


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """float32 `[B, L, C]`: `latents` and `noise` mixed at noise levels `sigmas` `[B]`."""
    sigmas = sigmas.reshape((-1, 1, 1))
    return (1 - sigmas) * latents + sigmas * noise


def weighted_error(prediction: Tensor, latents: Tensor, noise: Tensor, weights: Tensor) -> Tensor:
    """float32 scalar: `mean(weights * (prediction - (noise - latents))**2)`, `weights` `[B]`."""
    error = prediction.astype(ms.float32) - (noise - latents)
    return (weights.reshape((-1, 1, 1)) * ops.square(error)).mean()


class NetworkCall(nn.Cell):
    """Calls a FLUX network (transformer or ControlNet) on a micro-batch.

    Holds the inputs that are the same at every step. It has no parameters, and the networks are
    given to it, so that they stay parts of the loss cell that owns them.

    Args:
        text_length: T5 tokens per caption.
        guidance_scale: what a guidance-distilled model is told.
        dtype: the inputs are cast to it. A network that computes in another one (`to_float`)
            casts them itself.
    """

    def __init__(self, *, text_length: int, guidance_scale: float, dtype: Any) -> None:
        super().__init__()
        self.dtype = dtype
        self.text_ids = Tensor(text_ids(text_length))
        self.guidance = Tensor([guidance_scale], ms.float32)

    def construct(
        self,
        network: Any,
        takes_guidance: bool,
        hidden_states: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
        image_ids: Tensor,
        **conditions: Any,
    ) -> Any:
        """The network's outputs, a tuple.

        Args:
            network: a `FluxTransformer2DModel` or a `FluxControlNetModel`.
            takes_guidance: its `config.guidance_embeds`; without, it is told nothing.
            hidden_states: `[B, L, C]`, packed and noisy.
            timesteps: float32 `[B]`, in 0..1000.
            prompt_embeds: `[B, T, joint_attention_dim]`, from T5.
            pooled_prompt_embeds: `[B, pooled_projection_dim]`, from CLIP.
            image_ids: float32 `[L, 3]`, see `flux_common.latents.image_ids`. An input, so that a
                graph serves all images of as many tokens, whatever their shape.
            conditions: what only this network takes, in the dtype it computes in.
        """
        guidance = ops.tile(self.guidance, (hidden_states.shape[0],)) if takes_guidance else None
        return network(
            hidden_states=hidden_states.astype(self.dtype),
            timestep=timesteps / 1000,  # the networks multiply by 1000 again
            guidance=guidance,
            pooled_projections=pooled_prompt_embeds.astype(self.dtype),
            encoder_hidden_states=prompt_embeds.astype(self.dtype),
            txt_ids=self.text_ids,
            img_ids=image_ids,
            return_dict=False,
            **conditions,
        )
