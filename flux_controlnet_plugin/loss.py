"""The forward pass of FLUX.1 with a ControlNet, and its flow-matching loss."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn

from flux_common.velocity import NetworkCall, add_noise, weighted_error
from launcher.training.precision import activation_dtype


class FluxControlNetLoss(nn.Cell):
    """Weighted mean squared error between predicted and true velocity.

    With packed latents `x`, noise `e` and noise level `s`, the networks see
    `(1 - s) * x + s * e` and predict `e - x`; the loss is
    `mean(weight * (prediction - (e - x))**2)`, in float32. It is the loss of diffusers'
    `train_controlnet_flux.py`, where all weights are 1.

    Args:
        controlnet: a `FluxControlNetModel`; None: the transformer runs by itself.
        transformer: a `FluxTransformer2DModel`; also where it is frozen, gradients pass through it.
        auto_prefix: see `mindspore.nn.Cell`. False: another cell owns the networks.
        inputs: `text_length` and `guidance_scale`, see `flux_common.velocity.NetworkCall`.

    The networks' inputs are in `precision.activation_dtype` of the transformer.
    """

    def __init__(
        self, controlnet: Any | None, transformer: Any, *, auto_prefix: bool = True, **inputs: Any
    ) -> None:
        super().__init__(auto_prefix=auto_prefix)
        self.controlnet = controlnet
        self.transformer = transformer
        self.dtype = activation_dtype(transformer)
        self.network_call = NetworkCall(**inputs, dtype=self.dtype)
        self.has_controlnet = controlnet is not None
        self.controlnet_takes_guidance = self.has_controlnet and controlnet.config.guidance_embeds
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
        image_ids: Tensor,
    ) -> Tensor:
        """The loss of a micro-batch.

        Args:
            latents, control_latents, noise: float32 `[B, L, C]`, packed.
            sigmas: float32 `[B]`, noise levels.
            timesteps: float32 `[B]`, in 0..1000.
            weights: float32 `[B]`, of the samples' squared errors.
            prompt_embeds: `[B, T, joint_attention_dim]`, from T5.
            pooled_prompt_embeds: `[B, pooled_projection_dim]`, from CLIP.
            image_ids: float32 `[L, 3]`, the tokens' positions.

        Returns:
            float32 scalar.
        """
        noisy = add_noise(latents, noise, sigmas)
        prediction = self.predict(
            noisy, control_latents, timesteps, prompt_embeds, pooled_prompt_embeds, image_ids
        )
        return self.error(prediction, latents, noise, weights)

    def error(self, prediction: Tensor, latents: Tensor, noise: Tensor, weights: Tensor) -> Tensor:
        """float32 scalar: how far the prediction is off. A subclass may measure it otherwise."""
        return weighted_error(prediction, latents, noise, weights)

    def predict(
        self,
        noisy_latents: Tensor,
        control_latents: Tensor | None,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
        image_ids: Tensor,
    ) -> Tensor:
        """The velocity `[B, L, C]`; with `control_latents` None, the base model's own."""
        samples, single_samples = None, None
        if self.has_controlnet and control_latents is not None:
            samples, single_samples = self.residuals(
                noisy_latents,
                control_latents,
                timesteps,
                prompt_embeds,
                pooled_prompt_embeds,
                image_ids,
            )
        return self.network_call(
            self.transformer,
            self.transformer_takes_guidance,
            noisy_latents,
            timesteps,
            prompt_embeds,
            pooled_prompt_embeds,
            image_ids,
            controlnet_block_samples=samples,
            controlnet_single_block_samples=single_samples,
        )[0]

    def residuals(
        self,
        noisy_latents: Tensor,
        control_latents: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
        image_ids: Tensor,
    ) -> Any:
        """What the ControlNet adds to the double-stream and to the single-stream blocks: lists, or
        None."""
        return self.network_call(
            self.controlnet,
            self.controlnet_takes_guidance,
            noisy_latents,
            timesteps,
            prompt_embeds,
            pooled_prompt_embeds,
            image_ids,
            controlnet_cond=control_latents.astype(self.dtype),
        )
