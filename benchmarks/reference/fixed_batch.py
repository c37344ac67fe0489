"""A small pipeline and one batch with every random draw: what the reference scripts start from.

Cases of different scripts can share a folder, and with it the batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")

import torch  # noqa: E402
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler  # noqa: E402
from diffusers.utils.logging import set_verbosity_error  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402
from torch_controlnet import ControlNetLoss, image_ids, load_transformer  # noqa: E402
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel  # noqa: E402

GUIDANCE_SCALE = 3.5
INPUTS = (
    "pixel_values", "conditioning_pixel_values", "clip_input_ids", "t5_input_ids", "eps_pixel",
    "eps_control", "noise", "u",
)  # fmt: skip
COMPACT_BATCH = (
    *INPUTS, "guidance", "prompt_embeds", "pooled_prompt_embeds", "pixel_moments_mean",
    "pixel_moments_logvar", "control_moments_mean", "control_moments_logvar",
)  # fmt: skip
CAPTIONS = [
    "a red circle on a green background",
    "two blue squares and a long yellow line, drawn with a soft pencil",
    "seven grey stones in a shallow river at dusk",
    "a white house",
    "an orange triangle in front of a purple wall",
    "black rain over a small harbour",
    "a bowl of green apples on a wooden table",
    "a pink cloud above a flat and empty landscape",
]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every reference script."""
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--tiny-flux", type=Path, required=True, help="a FLUX.1 pipeline folder")
    parser.add_argument("--height", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--width", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--batch-size", type=int, default=2, help="rows of a new fixed batch (2)")
    parser.add_argument(
        "--text-length", type=int, default=512, help="T5 tokens of a new fixed batch (512)"
    )
    parser.add_argument("--no-guidance", action="store_true", help="drop the guidance embedding")
    parser.add_argument(
        "--compact",
        action="store_true",
        help="leave out what parity.py can do without: intermediate results, weights after steps",
    )
    parser.add_argument("--seed", type=int, default=0)


def prepare(options: argparse.Namespace) -> tuple[Parts, dict[str, Tensor]]:
    """The pipeline's parts and the fixed batch, which are made unless the folder has them."""
    set_verbosity_error()
    torch.manual_seed(options.seed)
    pipeline = options.out_dir / "tiny-flux"
    if not pipeline.exists():
        copy_pipeline(options.tiny_flux, pipeline, with_guidance=not options.no_guidance)
    parts = Parts(pipeline)
    save(parts.schedule(), options.out_dir / "scheduler.safetensors")
    file = options.out_dir / "fixed_batch.safetensors"
    if file.is_file():
        return parts, complete_batch(parts, load_file(file))
    size = options.height, options.width, options.text_length, options.batch_size
    batch = complete_batch(parts, draw_batch(parts, *size))
    save({n: t for n, t in batch.items() if not options.compact or n in COMPACT_BATCH}, file)
    return parts, batch


class Parts:
    """The parts of a pipeline, float32, on the CPU."""

    def __init__(self, pipeline: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(pipeline, subfolder="tokenizer")
        self.tokenizer_2 = AutoTokenizer.from_pretrained(pipeline, subfolder="tokenizer_2")
        self.text_encoder = CLIPTextModel.from_pretrained(pipeline, subfolder="text_encoder")
        self.text_encoder_2 = T5EncoderModel.from_pretrained(pipeline, subfolder="text_encoder_2")
        self.vae = AutoencoderKL.from_pretrained(pipeline, subfolder="vae")
        self.transformer = load_transformer(pipeline)
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
            pipeline, subfolder="scheduler"
        )
        for part in (self.text_encoder, self.text_encoder_2, self.vae):
            part.requires_grad_(False).eval()

    def schedule(self) -> dict[str, Tensor]:
        return {"sigmas": self.scheduler.sigmas, "timesteps": self.scheduler.timesteps}

    def token_ids(self, captions: list[str], text_length: int) -> dict[str, Tensor]:
        """Token ids, padded to the full length."""

        def tokenize(tokenizer: Any, length: int) -> Tensor:
            return tokenizer(
                captions,
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            ).input_ids

        return {
            "clip_input_ids": tokenize(self.tokenizer, self.tokenizer.model_max_length),
            "t5_input_ids": tokenize(self.tokenizer_2, text_length),
        }

    def embed(self, ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both encoders see the padding, as in diffusers' FLUX pipeline."""
        return {
            "prompt_embeds": self.text_encoder_2(ids["t5_input_ids"])[0],
            "pooled_prompt_embeds": self.text_encoder(ids["clip_input_ids"]).pooler_output,
        }

    def posterior(self, pixels: Tensor, prefix: str) -> dict[str, Tensor]:
        distribution = self.vae.encode(pixels).latent_dist
        return {
            f"{prefix}_moments_{name}": getattr(distribution, name)
            for name in ("mean", "logvar", "std")
        }

    def latents(self, mean: Tensor, std: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A posterior draw: as it is, normalised, and packed."""
        raw = mean + std * eps
        normalised = (raw - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        b, c, h, w = normalised.shape
        patches = normalised.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return raw, normalised, patches.reshape(b, h // 2 * (w // 2), 4 * c)

    def noise_levels(self, u: Tensor) -> dict[str, Tensor]:
        """The rows of the scheduler's table at positions `u`; sigmas are looked up, not cast."""
        indices = (u * self.scheduler.config.num_train_timesteps).long()
        return {
            "indices": indices,
            "timesteps": self.scheduler.timesteps[indices],
            "sigmas": self.scheduler.sigmas[indices].view(-1, 1, 1),
        }


def copy_pipeline(source: Path, target: Path, *, with_guidance: bool) -> None:
    """Copy a pipeline folder, on request without the transformer's guidance embedding."""
    shutil.copytree(source, target)
    if with_guidance:
        return
    folder = target / "transformer"
    config = json.loads((folder / "config.json").read_text())
    config["guidance_embeds"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    kept = {name: value for name, value in weights.items() if "guidance_embedder" not in name}
    save(kept, folder / "diffusion_pytorch_model.safetensors")


def draw_images(count: int, height: int, width: int) -> Tensor:
    """Coloured gradients with a rectangle and some grain, `[count, 3, height, width]`."""
    rows = torch.linspace(-1, 1, height).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, width).view(1, 1, 1, -1)
    slope = torch.rand(2, count, 3, 1, 1) * 2 - 1
    images = slope[0] * rows + slope[1] * columns + 0.1 * torch.randn(count, 3, height, width)
    for image in images:
        top, left = (torch.rand(2) * torch.tensor([height, width]) / 2).long().tolist()
        image[:, top : top + height // 3, left : left + width // 3] = torch.rand(3, 1, 1) * 2 - 1
    return images.clamp(-1, 1)


def draw_eps(parts: Parts, height: int, width: int, *leading: int) -> Tensor:
    return torch.randn(*leading, parts.vae.config.latent_channels, height // 8, width // 8)


def draw_noise(parts: Parts, height: int, width: int, *leading: int) -> Tensor:
    tokens = height // 16 * (width // 16)
    return torch.randn(*leading, tokens, parts.transformer.config.in_channels)


def draw_batch(
    parts: Parts, height: int, width: int, text_length: int, size: int
) -> dict[str, Tensor]:
    """The inputs of the fixed batch: images, captions, and every random draw."""
    return {
        "pixel_values": draw_images(size, height, width),
        "conditioning_pixel_values": draw_images(size, height, width),
        **parts.token_ids(CAPTIONS[:size], text_length),
        "eps_pixel": draw_eps(parts, height, width, size),
        "eps_control": draw_eps(parts, height, width, size),
        "noise": draw_noise(parts, height, width, size),
        "u": torch.randn(size).sigmoid(),
    }


@torch.no_grad()
def complete_batch(parts: Parts, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """All that is computed before anything trained runs, and the base model's own prediction."""
    batch = {name: given[name] for name in INPUTS}
    batch |= parts.embed(batch)
    batch |= parts.noise_levels(batch["u"])
    for prefix, pixels, packed in (
        ("pixel", "pixel_values", "pixel_latents"),
        ("control", "conditioning_pixel_values", "control_image"),
    ):
        batch |= parts.posterior(batch[pixels], prefix)
        mean, std = batch[f"{prefix}_moments_mean"], batch[f"{prefix}_moments_std"]
        raw, normalised, tokens = parts.latents(mean, std, batch[f"eps_{prefix}"])
        batch |= {
            f"{prefix}_latents_raw": raw,
            f"{prefix}_latents_unpacked": normalised,
            packed: tokens,
        }
    height, width = batch["pixel_values"].shape[-2:]
    batch["img_ids"] = image_ids(height // 16, width // 16)
    batch["text_ids_2d"] = torch.zeros(text_length(batch), 3)
    batch["text_ids"] = torch.zeros(len(batch["u"]), text_length(batch), 3)
    if parts.transformer.config.guidance_embeds:
        batch["guidance"] = torch.full((len(batch["u"]),), GUIDANCE_SCALE)

    sigmas = batch["sigmas"]
    noisy = (1.0 - sigmas) * batch["pixel_latents"] + sigmas * batch["noise"]
    target = batch["noise"] - batch["pixel_latents"]
    base = loss_of(parts, None, batch)
    prediction = parts.transformer(
        **base.inputs(
            parts.transformer,
            noisy,
            batch["timesteps"],
            batch["prompt_embeds"],
            batch["pooled_prompt_embeds"],
        )
    )[0]
    batch |= {
        "noisy_model_input": noisy,
        "target": target,
        "noise_pred_no_controlnet": prediction,
        "loss_no_controlnet": torch.nn.functional.mse_loss(prediction, target),
    }
    return batch


def loss_of(parts: Parts, controlnet: Any, batch: dict[str, Tensor]) -> ControlNetLoss:
    height, width = batch["pixel_values"].shape[-2:]
    return ControlNetLoss(
        controlnet,
        parts.transformer,
        text_ids=torch.zeros(text_length(batch), 3),
        image_ids=image_ids(height // 16, width // 16),
        guidance_scale=GUIDANCE_SCALE,
    )


def text_length(batch: dict[str, Tensor]) -> int:
    return batch["t5_input_ids"].shape[1]


def save(tensors: dict[str, Tensor], file: Path) -> None:
    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, file
    )
