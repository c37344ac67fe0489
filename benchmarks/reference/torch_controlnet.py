"""One training step of a FLUX.1 ControlNet in torch with diffusers' models.

The computation is that of diffusers' `train_controlnet_flux.py`; the words are ours. Runs in the
environment that `benchmarks/torch_environment.py` makes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from torch import Tensor, nn


def load_transformer(pipeline: str | Path) -> FluxTransformer2DModel:
    """The frozen transformer of a pipeline folder, float32."""
    transformer = FluxTransformer2DModel.from_pretrained(pipeline, subfolder="transformer")
    return transformer.requires_grad_(False)


def make_controlnet(
    transformer: FluxTransformer2DModel, double: int, single: int
) -> FluxControlNetModel:
    """A fresh ControlNet from the first layers of a transformer."""
    return FluxControlNetModel.from_transformer(
        transformer,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=transformer.config.attention_head_dim,
        num_attention_heads=transformer.config.num_attention_heads,
    )


class ControlNetLoss(nn.Module):
    """Flow-matching loss of a ControlNet on top of a frozen transformer."""

    def __init__(
        self,
        controlnet: FluxControlNetModel,
        transformer: FluxTransformer2DModel,
        *,
        text_ids: Tensor,
        image_ids: Tensor,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.controlnet = controlnet
        self.transformer = transformer
        self.text_ids = text_ids
        self.image_ids = image_ids
        self.guidance_scale = guidance_scale

    def forward(
        self,
        latents: Tensor,
        control_latents: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The loss, and what led to it by name.

        Args:
            latents, control_latents, noise: `[B, L, C]`, packed.
            sigmas: `[B, 1, 1]`; timesteps: `[B]` in 0..1000.
            prompt_embeds: `[B, T, D]`; pooled_prompt_embeds: `[B, P]`.
        """
        noisy = (1.0 - sigmas) * latents + sigmas * noise
        blocks, single_blocks = self.controlnet(
            controlnet_cond=control_latents,
            **self.inputs(self.controlnet, noisy, timesteps, prompt_embeds, pooled_prompt_embeds),
        )
        prediction = self.transformer(
            controlnet_block_samples=blocks,
            controlnet_single_block_samples=single_blocks,
            **self.inputs(self.transformer, noisy, timesteps, prompt_embeds, pooled_prompt_embeds),
        )[0]
        target = noise - latents
        loss = nn.functional.mse_loss(prediction.float(), target.float())
        return loss, {
            "noisy_model_input": noisy,
            "target": target,
            "noise_pred": prediction,
            "block_samples": blocks,
            "single_block_samples": single_blocks,
        }

    def inputs(
        self, network: Any, noisy: Tensor, timesteps: Tensor, embeds: Tensor, pooled: Tensor
    ) -> dict[str, Any]:
        """What both networks are told; guidance only where they have an embedding for it."""
        guidance = None
        if network.config.guidance_embeds:
            guidance = torch.full((len(noisy),), self.guidance_scale)
        return dict(
            hidden_states=noisy,
            timestep=timesteps / 1000,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            txt_ids=self.text_ids,
            img_ids=self.image_ids,
            return_dict=False,
        )


def image_ids(height: int, width: int) -> Tensor:
    """`[height * width, 3]`: zero, row, column of every packed latent."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()


class AdamWStep:
    """Backward pass, clipping and update of whatever a loss module trains, with torch's AdamW."""

    def __init__(
        self, loss: nn.Module, *, learning_rate: float, max_grad_norm: float, **adamw: Any
    ) -> None:
        self.loss = loss
        self.max_grad_norm = max_grad_norm
        self.parameters = [p for p in loss.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, **adamw)

    def __call__(self, *inputs: Tensor) -> tuple[float, float]:
        """One step. Returns the loss and the norm of the gradients before clipping."""
        loss, _ = self.loss(*inputs)
        self.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), norm.item()

    def backward(self, loss: Tensor) -> None:
        """Give the parameters their gradients."""
        loss.backward()
