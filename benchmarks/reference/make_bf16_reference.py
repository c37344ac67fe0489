"""Reference values of half-precision training from torch, for tests/launcher/cpu/test_bf16.py.

    python benchmarks/torch_environment.py        # prints the Python to run this with
    .venv-torch/bin/python benchmarks/reference/make_bf16_reference.py tests/data/cpu/bf16.npz \\
        --tiny-flux tests/data/tiny-flux

Layers: every case of `layers` in bfloat16, with its inputs, parameters, output and gradients. All
of them are bfloat16 values and saved as their upper 16 bits.

Encoders: outputs of CLIP, T5 and the VAE in bfloat16, likewise.

Training: 20 steps of a ControlNet on the tiny FLUX as diffusers' script runs them with
`--mixed_precision`: the transformer cast, the ControlNet in float32 under autocast. Losses in
bfloat16, float16 and float32; in bfloat16 also the first prediction and the smaller gradients.

Inputs of the encoders, start weights and draws are functions of numpy's generators, which the
test repeats.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.normalization import RMSNorm
from recording import ADAMW, LEARNING_RATE
from torch import Tensor, nn
from torch_controlnet import (
    AdamWStep,
    ControlNetLoss,
    image_ids,
    load_transformer,
    make_controlnet,
)
from transformers import CLIPTextModel, T5EncoderModel

STEPS = 20
SIZE = (2, 3)  # of the packed latents
TEXT_LENGTH = 16
CLIP = 1.0
LOSS_SCALE = 2.0**16  # for float16
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out_file", type=Path)
    parser.add_argument("--tiny-flux", type=Path, required=True, help="a FLUX.1 pipeline folder")
    options = parser.parse_args()
    torch.manual_seed(0)
    saved = record_layers() | record_encoders(options.tiny_flux)
    for name in DTYPES:
        saved |= record_training(options.tiny_flux, name)
    np.savez_compressed(options.out_file, **saved)
    for name in DTYPES:
        losses = saved[f"training/{name}/losses"]
        print(name, "losses", losses[0], "...", losses[-1])


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class T5Norm(nn.Module):
    """T5's layer norm, as transformers computes it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6)).to(self.weight.dtype)


def layers() -> dict[str, tuple[nn.Module, list[tuple[int, ...]]]]:
    """Name -> (module, shapes of its inputs)."""
    heads = (2, 3, 10, 16)
    return {
        "linear": (nn.Linear(48, 20), [(2, 6, 48)]),
        "conv2d": (nn.Conv2d(6, 8, 3, stride=2, padding=1), [(2, 6, 7, 5)]),
        "layer_norm": (nn.LayerNorm(48), [(2, 6, 48)]),
        "layer_norm_plain": (
            nn.LayerNorm(48, eps=1e-6, elementwise_affine=False),
            [(2, 6, 48)],
        ),
        "rms_norm": (RMSNorm(16, eps=1e-6), [(2, 6, 3, 16)]),
        "t5_norm": (T5Norm(48), [(2, 6, 48)]),
        "group_norm": (nn.GroupNorm(4, 8, eps=1e-6), [(2, 8, 5, 4)]),
        "gelu": (nn.GELU(approximate="tanh"), [(4, 50)]),
        "silu": (nn.SiLU(), [(4, 50)]),
        "attention": (Attention(), [heads, heads, heads]),
    }


def record_layers() -> dict[str, np.ndarray]:
    saved = {}
    for name, (module, shapes) in layers().items():
        for parameter in module.parameters():
            parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape)
        module = module.to(torch.bfloat16)
        inputs = [torch.randn(shape).bfloat16().requires_grad_() for shape in shapes]
        out = module(*inputs)
        cotangent = torch.randn(out.shape).bfloat16()
        out.backward(cotangent)
        tensors = {"out": out, "cotangent": cotangent}
        for number, x in enumerate(inputs):
            tensors |= {f"in{number}": x, f"grad{number}": x.grad}
        for key, parameter in module.named_parameters():
            tensors |= {key: parameter, f"{key}_grad": parameter.grad}
        saved |= {f"layer/{name}/{key}": bits(tensor) for key, tensor in tensors.items()}
    return saved


@torch.no_grad()
def record_encoders(pipeline: Path) -> dict[str, np.ndarray]:
    clip = CLIPTextModel.from_pretrained(pipeline, subfolder="text_encoder")
    t5 = T5EncoderModel.from_pretrained(pipeline, subfolder="text_encoder_2")
    vae = AutoencoderKL.from_pretrained(pipeline, subfolder="vae")
    generator = np.random.default_rng(3)
    clip_ids = generator.integers(0, clip.config.vocab_size - 1, (2, 77))
    clip_ids[:, 40:] = clip.config.vocab_size - 1  # the end token: the pooled position
    t5_ids = generator.integers(0, t5.config.vocab_size, (2, 24))
    image = torch.from_numpy(generator.uniform(-1, 1, (1, 3, 32, 48)).astype(np.float32))

    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        for part in (clip, t5, vae):
            part.to(dtype)
        return {
            "clip": clip(torch.from_numpy(clip_ids)).pooler_output,
            "t5": t5(torch.from_numpy(t5_ids)).last_hidden_state,
            "vae": vae.encode(image.to(dtype)).latent_dist.parameters,
        }

    full, half = run(torch.float32), run(torch.bfloat16)
    saved = {f"encoder/{name}": bits(tensor) for name, tensor in half.items()}
    for name, tensor in half.items():  # how far float32 is from it
        distance = (full[name] - tensor).norm() / tensor.float().norm()
        saved[f"encoder/{name}/distance"] = distance.numpy()
    return saved


def bits(tensor: Tensor) -> np.ndarray:
    """The bits of a bfloat16 tensor; numpy has no such dtype."""
    assert tensor.dtype == torch.bfloat16
    return tensor.detach().contiguous().view(torch.uint16).numpy()


def record_training(pipeline: Path, name: str) -> dict[str, np.ndarray]:
    dtype = DTYPES[name]
    transformer = load_transformer(pipeline)
    controlnet = make_controlnet(transformer, 1, 1)
    fill(controlnet)
    transformer.to(dtype)
    loss_module = HalfPrecisionLoss(
        controlnet,
        transformer,
        text_ids=torch.zeros(TEXT_LENGTH, 3),
        image_ids=image_ids(*SIZE),
        guidance_scale=3.5,
    )
    inputs = [tuple(map(torch.from_numpy, draws(step))) for step in range(STEPS)]
    saved = {}
    if name != "fp16":
        loss, found = loss_module(*inputs[0])
        saved["prediction"] = found["noise_pred"].detach().float().numpy()
    if name == "bf16":
        loss.backward()
        saved |= {
            f"grad/{key}": bits(p.grad.bfloat16())
            for key, p in controlnet.named_parameters()
            if p.grad is not None and p.numel() <= 256
        }
        loss_module.zero_grad()
    step_class = ScaledAdamWStep if name == "fp16" else AdamWStep
    step = step_class(loss_module, learning_rate=LEARNING_RATE, max_grad_norm=CLIP, **ADAMW)
    saved["losses"] = np.array([step(*arguments)[0] for arguments in inputs])
    return {f"training/{name}/{key}": array for key, array in saved.items()}


class ScaledAdamWStep(AdamWStep):
    """With a constant loss scale, taken out of the gradients again."""

    def backward(self, loss: Tensor) -> None:
        (loss * LOSS_SCALE).backward()
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= LOSS_SCALE


class HalfPrecisionLoss(ControlNetLoss):
    """Inputs in the transformer's dtype; the ControlNet under autocast."""

    def inputs(self, network: Any, *arguments: Any) -> dict[str, Any]:
        named = super().inputs(network, *arguments)
        dtype = self.transformer.dtype
        for key in ("hidden_states", "pooled_projections", "encoder_hidden_states"):
            named[key] = named[key].to(dtype)
        return named

    def forward(self, *arguments: Tensor) -> Any:
        dtype = self.transformer.dtype
        original = self.controlnet.forward

        def under_autocast(*, controlnet_cond: Tensor, **inputs: Any) -> Any:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                samples = original(controlnet_cond=controlnet_cond.to(dtype), **inputs)
            return [[s.to(dtype) for s in part] for part in samples]

        self.controlnet.forward = under_autocast
        try:
            return super().forward(*arguments)
        finally:
            self.controlnet.forward = original


def fill(controlnet: nn.Module) -> None:
    """Values for the layers that start at zero, so that all parameters get gradients."""
    generator = np.random.default_rng(1)
    for name, parameter in controlnet.named_parameters():
        if name.startswith("controlnet_"):
            value = 0.1 * generator.standard_normal(tuple(parameter.shape))
            parameter.data = torch.from_numpy(value.astype(np.float32))


def draws(step: int) -> tuple[np.ndarray, ...]:
    """Arguments of the loss: two samples of random latents, noise, levels and embeddings."""
    generator = np.random.default_rng([2, step])

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    tokens = SIZE[0] * SIZE[1]
    latents, control, noise = normal(2, tokens, 64), normal(2, tokens, 64), normal(2, tokens, 64)
    timesteps = generator.integers(1, 1001, 2).astype(np.float32)
    sigmas = (timesteps / 1000).reshape(2, 1, 1)
    return latents, control, noise, sigmas, timesteps, normal(2, TEXT_LENGTH, 32), normal(2, 32)


if __name__ == "__main__":
    main()
