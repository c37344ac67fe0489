"""This project's side of `vs_diffusers.py`: the recipe's models, loss, step and optimizer.

python benchmarks/step_mindspore.py PIPELINE BATCHES.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import blocks


def prepare() -> tuple[Callable[[int], float], dict[str, Any]]:
    from launcher import quiet

    quiet.install(verbose=False)

    import mindone
    import mindspore as ms
    from safetensors.numpy import load_file

    from flux_common.latents import image_ids
    from flux_common.loading import load_transformer
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from flux_controlnet_plugin.loss import FluxControlNetLoss
    from launcher.training import device
    from launcher.training.freeze import set_trainable
    from launcher.training.optim import AdamW
    from launcher.training.step import TrainStep

    device.set_up("CPU", 0, "graph")

    pipeline, file = sys.argv[1:]
    arrays = load_file(file)
    names = [
        "latents", "control_latents", "noise", "sigmas", "timesteps", "weights", "prompt_embeds",
        "pooled_prompt_embeds",
    ]  # fmt: skip
    transformer = load_transformer(pipeline)
    set_trainable(transformer, False)
    controlnet = controlnet_from_transformer(transformer, 1, 1)
    set_trainable(controlnet, True)
    loss = FluxControlNetLoss(
        controlnet,
        transformer,
        text_length=arrays["prompt_embeds"].shape[2],
        guidance_scale=float(arrays["guidance_scale"]),
    )
    parameters = loss.trainable_params()
    train_step = TrainStep(loss, AdamW(parameters), max_grad_norm=1.0)
    learning_rate = float(arrays["learning_rate"])

    ids = image_ids(*arrays["size"].tolist())

    def step(number: int) -> float:
        row = number % len(arrays["latents"])
        micro_batch = [*(arrays[name][row] for name in names), ids]
        return train_step([micro_batch], learning_rate)[0]

    return step, {
        "versions": f"mindspore {ms.__version__}, mindone {mindone.__version__}",
        "threads": ms.get_context("runtime_num_threads"),
        "parameters": sum(p.size for p in parameters),
    }


if __name__ == "__main__":
    blocks.serve(prepare)
