"""Reference latents of images with others' kinds of ControlNet, for test_images.py.

    python benchmarks/torch_environment.py        # prints the Python to run this with
    .venv-torch/bin/python benchmarks/reference/make_sample_reference.py \\
        tests/data/sample_others.npz --tiny-flux tests/data/one-layer-flux

Of a union of ControlNets, in each of two modes, and of one with a convolutional embedder (XLabs'),
each of one double layer: the latents after three steps of Euler's method, by diffusers' models in
torch. Weights, embeddings, control image and noise are functions of numpy's generators, which the
test repeats.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxControlNetModel, FluxTransformer2DModel
from torch import Tensor
from torch_controlnet import image_ids, load_transformer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
HEIGHT, WIDTH, TEXT, STEPS, SEED, GUIDANCE = 32, 48, 16, 3, 5, 3.5
KINDS = {
    "union": {"num_mode": 3},
    "embedder": {"conditioning_embedding_channels": 16, "patch_size": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out_file", type=Path)
    parser.add_argument("--tiny-flux", type=Path, required=True, help="a FLUX.1 pipeline folder")
    options = parser.parse_args()
    transformer = load_transformer(options.tiny_flux)
    vae = AutoencoderKL.from_pretrained(options.tiny_flux, subfolder="vae").eval()
    saved = {}
    with torch.no_grad():
        for kind, options_of_kind in KINDS.items():
            controlnet = make(transformer, **options_of_kind)
            for mode in (0, 2) if kind == "union" else (None,):
                name = kind if mode is None else f"{kind}/{mode}"
                saved[name] = latents(transformer, controlnet, vae, mode)
                print(name, np.linalg.norm(saved[name]))
    np.savez_compressed(options.out_file, **saved)


def make(transformer: FluxTransformer2DModel, **options: Any) -> FluxControlNetModel:
    """A ControlNet that fits a transformer, each parameter drawn by its name."""
    shared = (
        "patch_size", "in_channels", "attention_head_dim", "num_attention_heads",
        "joint_attention_dim", "pooled_projection_dim", "guidance_embeds", "axes_dims_rope",
    )  # fmt: skip
    config = {name: transformer.config[name] for name in shared}
    config |= {"num_layers": 1, "num_single_layers": 0, **options}
    controlnet = FluxControlNetModel(**config)
    values = {name: drawn(name, tuple(p.shape)) for name, p in controlnet.state_dict().items()}
    controlnet.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()})
    return controlnet.eval()


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a parameter."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return (0.1 * generator.standard_normal(shape)).astype(np.float32)


def latents(
    transformer: FluxTransformer2DModel,
    controlnet: FluxControlNetModel,
    vae: AutoencoderKL,
    mode: int | None,
) -> np.ndarray:
    """float32 `[1, 16, HEIGHT / 8, WIDTH / 8]`."""
    from launcher.training.random import generator

    rng = np.random.default_rng(0)
    embeds, pooled = (
        torch.from_numpy(rng.standard_normal(shape).astype(np.float32))[None]
        for shape in ((TEXT, 32), (32,))
    )
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    pixels = torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    condition = pixels
    if mode is not None:
        draws = generator(SEED, "posterior of the control image", 0)
        shape = (1, 16, HEIGHT // 8, WIDTH // 8)
        eps = torch.from_numpy(draws.standard_normal(shape).astype(np.float32))
        posterior = vae.encode(pixels).latent_dist
        encoded = posterior.mean + posterior.std * eps
        condition = pack((encoded - vae.config.shift_factor) * vae.config.scaling_factor)
    tokens = HEIGHT // 16 * (WIDTH // 16)
    noise = generator(SEED, "image noise", 0).standard_normal((tokens, 64), dtype=np.float32)
    hidden = torch.from_numpy(noise)[None]
    modes = {} if mode is None else {"controlnet_mode": torch.tensor([[mode]])}
    for level, following in itertools.pairwise(sigmas(tokens)):
        inputs = {
            "hidden_states": hidden,
            "timestep": torch.tensor([level]),
            "guidance": torch.tensor([GUIDANCE]),
            "pooled_projections": pooled,
            "encoder_hidden_states": embeds,
            "txt_ids": torch.zeros(TEXT, 3),
            "img_ids": image_ids(HEIGHT // 16, WIDTH // 16),
            "return_dict": False,
        }
        blocks, single_blocks = controlnet(controlnet_cond=condition, **modes, **inputs)
        (velocity,) = transformer(
            controlnet_block_samples=blocks,
            controlnet_single_block_samples=single_blocks,
            controlnet_blocks_repeat=mode is None,
            **inputs,
        )
        hidden = hidden + float(following - level) * velocity
    packed = hidden.numpy().reshape(1, HEIGHT // 16, WIDTH // 16, 16, 2, 2)
    return packed.transpose(0, 3, 1, 4, 2, 5).reshape(1, 16, HEIGHT // 8, WIDTH // 8)


def pack(encoded: Tensor) -> Tensor:
    """`[1, 16, h, w]` to `[1, h / 2 * w / 2, 64]`."""
    _, channels, height, width = encoded.shape
    patches = encoded.reshape(1, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(1, height * width // 4, channels * 4)


def sigmas(tokens: int) -> np.ndarray:
    """Those of FLUX.1-dev's scheduler: shifted by exp(mu), which grows with the tokens."""
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    times = np.linspace(1, 1 / STEPS, STEPS)
    return np.append(np.exp(mu) / (np.exp(mu) + 1 / times - 1), 0).astype(np.float32)


if __name__ == "__main__":
    main()
