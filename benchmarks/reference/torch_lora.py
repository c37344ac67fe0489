"""One training step of FLUX.1 with LoRA adapters in torch, with diffusers' and PEFT's code.

The computation is that of diffusers' `train_dreambooth_lora_flux.py`; the words are ours. It
departs from the script where that cannot run or does more than it means to:

- Prior preservation: the script multiplies either half's error by the weights of all rows. With
  one sample that applies the mean weight to both halves, which is right while the weights are
  ones; with more it fails, whatever the weighting scheme. Here every row has its own weight, as in
  the script since diffusers' pull request 13743.
- Prior preservation without a caption of each image's own: the script's embeddings have a row
  for each of the two prompts rather than for each image, its text ids as many rows as both
  prompts' tokens together, and the transformer fails (diffusers' issue 10722). Here as with
  captions of their own: one row for each image, the ids of one prompt.
- `train_text_encoder`: the script lets CLIP's embedding table have gradients for the sake of
  checkpointing. No optimizer updates or clears them, but clipping counts them, more with every
  step. Here the norm is that of what is trained.
- The script gives the text encoder a learning rate and weight decay of its own; here both have
  the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.training_utils import _collate_lora_metadata, compute_loss_weighting_for_sd3
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPTextModel

CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


def add_adapter(model: Any, targets: Sequence[str], *, rank: int, lora_alpha: int) -> None:
    """Add an adapter that is trained to every target layer; B is zero."""
    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        init_lora_weights="gaussian",
        target_modules=list(targets),
    )
    model.add_adapter(config)


class LoraLoss(nn.Module):
    """Flow-matching loss of a transformer with adapters, and perhaps of CLIP with adapters."""

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        text_encoder: CLIPTextModel | None,
        *,
        guidance_scale: float,
        weighting_scheme: str,
        prior_loss_weight: float | None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.guidance_scale = guidance_scale
        self.weighting_scheme = weighting_scheme
        self.prior_loss_weight = prior_loss_weight
        self.train()

    def forward(
        self,
        latents: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        text: Tensor,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The loss, and what led to it by name.

        Args:
            latents, noise: `[N, C, h, w]`; with prior preservation the class images are last.
            sigmas: `[N, 1, 1, 1]`; timesteps: `[N]` in 0..1000.
            prompt_embeds: `[N, T, D]`.
            text: CLIP's token ids where it is trained, else its pooled output.
        """
        count, channels, height, width = latents.shape
        if self.text_encoder is not None:
            text = self.text_encoder(text, output_hidden_states=False).pooler_output
        noisy = (1.0 - sigmas) * latents + sigmas * noise
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.tensor([self.guidance_scale]).expand(count)
        packed = self.transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, count, channels, height, width),
            timestep=timesteps / 1000,
            guidance=guidance,
            pooled_projections=text,
            encoder_hidden_states=prompt_embeds,
            txt_ids=torch.zeros(prompt_embeds.shape[1], 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(
                count, height // 2, width // 2, latents.device, latents.dtype
            ),
            return_dict=False,
        )[0]
        prediction = unpack(packed, height, width)
        target = noise - latents
        weighting = compute_loss_weighting_for_sd3(self.weighting_scheme, sigmas)
        if self.prior_loss_weight is None:
            loss = error(prediction, target, weighting)
        else:
            halves = zip(*(rows.chunk(2) for rows in (prediction, target, weighting)))
            instance, prior = (error(*half) for half in halves)
            loss = instance + self.prior_loss_weight * prior
        return loss, {"noise_pred": packed}

    def parts(self) -> dict[str, Any]:
        """The models with adapters, by their names in a pipeline."""
        parts = {"transformer": self.transformer, "text_encoder": self.text_encoder}
        return {name: model for name, model in parts.items() if model is not None}

    def trained(self) -> dict[str, nn.Parameter]:
        """The adapters' parameters, by their names in diffusers' files."""
        return {
            f"{part}.{name.replace('.default.', '.')}": parameter
            for part, model in self.parts().items()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    def save_adapters(self, folder: Path) -> None:
        """Write `pytorch_lora_weights.safetensors` as the script does.

        Only its header names no folder, and lists the layers in order.
        """
        for model in self.parts().values():
            config = model.peft_config["default"]
            config.base_model_name_or_path = None
            config.target_modules = sorted(config.target_modules)
        layers = {
            f"{part}_lora_layers": get_peft_model_state_dict(model)
            for part, model in self.parts().items()
        }
        FluxPipeline.save_lora_weights(folder, **layers, **_collate_lora_metadata(self.parts()))


def unpack(packed: Tensor, height: int, width: int) -> Tensor:
    """`[N, C, height, width]` of `[N, L, 4C]`."""
    scale = 8  # of the VAE, in which diffusers' function counts
    return FluxPipeline._unpack_latents(packed, height * scale, width * scale, scale)


def error(prediction: Tensor, target: Tensor, weighting: Tensor) -> Tensor:
    """Weighted squared error: the mean over images of each image's mean."""
    squares = weighting.float() * (prediction.float() - target.float()) ** 2
    return squares.reshape(len(target), -1).mean(1).mean()
