"""The torch side of `vs_diffusers.py`; runs in the torch environment.

python benchmarks/step_torch.py PIPELINE BATCHES.safetensors
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blocks

sys.path.insert(0, str(Path(__file__).resolve().parent / "reference"))


def prepare() -> tuple[Callable[[int], float], dict[str, Any]]:
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")

    import diffusers
    import torch
    from safetensors.numpy import load_file
    from torch_controlnet import (
        AdamWStep,
        ControlNetLoss,
        image_ids,
        load_transformer,
        make_controlnet,
    )

    pipeline, file = sys.argv[1:]
    arrays = load_file(file)
    names = [
        "latents", "control_latents", "noise", "sigmas", "timesteps", "prompt_embeds",
        "pooled_prompt_embeds",
    ]  # fmt: skip
    arrays["sigmas"] = arrays["sigmas"].reshape(*arrays["sigmas"].shape, 1, 1)
    transformer = load_transformer(pipeline)
    loss = ControlNetLoss(
        make_controlnet(transformer, 1, 1),
        transformer,
        text_ids=torch.zeros(arrays["prompt_embeds"].shape[2], 3),
        image_ids=image_ids(*arrays["size"].tolist()),
        guidance_scale=float(arrays["guidance_scale"]),
    )
    train_step = AdamWStep(loss, learning_rate=float(arrays["learning_rate"]), max_grad_norm=1.0)

    def step(number: int) -> float:
        row = number % len(arrays["latents"])
        return train_step(*(torch.from_numpy(arrays[name][row]) for name in names))[0]

    return step, {
        "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in train_step.parameters),
    }


if __name__ == "__main__":
    blocks.serve(prepare)
