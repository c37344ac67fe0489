"""The forward pass of FLUX.1 with a ControlNet, and its flow-matching loss."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from flux_common.latents import image_ids, text_ids


class FluxControlNetLoss(nn.Cell):
    """Weighted mean squared error between predicted and true velocity.

    With packed latents `x`, noise `e` and noise level `s`, the networks see
    `(1 - s) * x + s * e` and predict `e - x`; the loss is
    `mean(weight * (prediction - (e - x))**2)`, in float32. It is the loss of diffusers'
    `train_controlnet_flux.py`, where all weights are 1.

    Args:
        controlnet: a `FluxControlNetModel`; trained.
        transformer: a `FluxTransformer2DModel`; frozen, but gradients pass through it.
        size: (height, width) of the packed latents: a sixteenth of the image's.
        text_length: T5 tokens per caption.
        guidance_scale: what a guidance-distilled model is told; networks without guidance
            embedding are told nothing.
        dtype: what the networks compute in; their inputs are cast to it.
    """

    def __init__(
        self,
        controlnet: Any,
        transformer: Any,
        *,
        size: tuple[int, int],
        text_length: int,
        guidance_scale: float,
        dtype: Any,
    ) -> None:
        super().__init__()
        self.controlnet = controlnet
        self.transformer = transformer
        self.dtype = dtype
        self.image_ids = Tensor(image_ids(*size))
        self.text_ids = Tensor(text_ids(text_length))
        self.guidance = Tensor([guidance_scale], ms.float32)
        self.controlnet_takes_guidance = controlnet.config.guidance_embeds
        self.transformer_takes_guidance = transformer.config.guidance_embeds

    def construct(
        self,
        latents: Tensor,
        control_latents: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        timesteps: Tensor,
        weights: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
    ) -> Tensor:
        """The loss of a micro-batch.

        Args:
            latents, control_latents, noise: float32 `[B, L, C]`, packed.
            sigmas: float32 `[B]`, noise levels.
            timesteps: float32 `[B]`, in 0..1000.
            weights: float32 `[B]`, of the samples' squared errors.
            prompt_embeds: `[B, T, joint_attention_dim]`, from T5.
            pooled_prompt_embeds: `[B, pooled_projection_dim]`, from CLIP.

        Returns:
            float32 scalar.
        """
        sigmas = sigmas.reshape((-1, 1, 1))
        noisy_latents = (1 - sigmas) * latents + sigmas * noise
        prediction = self.predict(
            noisy_latents, control_latents, timesteps, prompt_embeds, pooled_prompt_embeds
        )
        error = prediction.astype(ms.float32) - (noise - latents)
        return (weights.reshape((-1, 1, 1)) * ops.square(error)).mean()

    def predict(
        self,
        noisy_latents: Tensor,
        control_latents: Tensor | None,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
    ) -> Tensor:
        """The velocity `[B, L, C]`; with `control_latents` None, the base model's own."""
        noisy_latents = noisy_latents.astype(self.dtype)
        prompt_embeds = prompt_embeds.astype(self.dtype)
        pooled_prompt_embeds = pooled_prompt_embeds.astype(self.dtype)
        guidance = ops.tile(self.guidance, (noisy_latents.shape[0],))
        timesteps = timesteps / 1000  # the networks multiply by 1000 again

        block_samples, single_block_samples = None, None
        if control_latents is not None:
            block_samples, single_block_samples = self.controlnet(
                hidden_states=noisy_latents,
                controlnet_cond=control_latents.astype(self.dtype),
                timestep=timesteps,
                guidance=guidance if self.controlnet_takes_guidance else None,
                pooled_projections=pooled_prompt_embeds,
                encoder_hidden_states=prompt_embeds,
                txt_ids=self.text_ids,
                img_ids=self.image_ids,
                return_dict=False,
            )
        return self.transformer(
            hidden_states=noisy_latents,
            timestep=timesteps,
            guidance=guidance if self.transformer_takes_guidance else None,
            pooled_projections=pooled_prompt_embeds,
            encoder_hidden_states=prompt_embeds,
            controlnet_block_samples=block_samples,
            controlnet_single_block_samples=single_block_samples,
            txt_ids=self.text_ids,
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
