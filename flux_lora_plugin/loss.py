"""The forward pass of FLUX.1 with LoRA adapters, and its flow-matching loss."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn

from flux_common.velocity import NetworkCall, add_noise, weighted_error
from launcher.training.precision import activation_dtype


class FluxLoraLoss(nn.Cell):
    """The loss of diffusers' `train_dreambooth_lora_flux.py`, see `flux_common.velocity`.

    Args:
        transformer: a `FluxTransformer2DModel` with adapters.
        text_encoder: a `CLIPTextModel` with adapters; None: its output is given.
        inputs: `text_length` and `guidance_scale`, see `flux_common.velocity.NetworkCall`.

    The networks' inputs are in `precision.activation_dtype` of the transformer.
    """

    def __init__(self, transformer: Any, text_encoder: Any = None, **inputs: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.trains_text_encoder = text_encoder is not None
        self.network_call = NetworkCall(**inputs, dtype=activation_dtype(transformer))
        self.takes_guidance = transformer.config.guidance_embeds

    def construct(
        self,
        latents: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        timesteps: Tensor,
        weights: Tensor,
        prompt_embeds: Tensor,
        text: Tensor,
        image_ids: Tensor,
    ) -> Tensor:
        """The loss of a micro-batch, a float32 scalar.

        Args:
            latents, noise: float32 `[B, L, C]`, packed.
            sigmas, timesteps, weights: float32 `[B]`; timesteps in 0..1000.
            prompt_embeds: `[B, T, joint_attention_dim]`, from T5.
            text: int32 `[B, 77]`, CLIP's token ids; without text encoder its pooled output,
                `[B, pooled_projection_dim]`.
            image_ids: float32 `[L, 3]`, the tokens' positions.
        """
        noisy = add_noise(latents, noise, sigmas)
        prediction = self.predict(noisy, timesteps, prompt_embeds, text, image_ids)
        return self.error(prediction, latents, noise, weights)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        text: Tensor,
        image_ids: Tensor,
    ) -> Tensor:
        """The velocity `[B, L, C]`."""
        pooled = text
        if self.trains_text_encoder:
            pooled = self.text_encoder(text, output_hidden_states=False, return_dict=False)[1]
        network, guided, texts = self.transformer, self.takes_guidance, (prompt_embeds, pooled)
        return self.network_call(network, guided, noisy, timesteps, *texts, image_ids)[0]

    def error(self, prediction: Tensor, latents: Tensor, noise: Tensor, weights: Tensor) -> Tensor:
        """float32 scalar: how far the prediction is off. A subclass may measure it otherwise."""
        return weighted_error(prediction, latents, noise, weights)
