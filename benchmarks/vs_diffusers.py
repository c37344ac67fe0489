"""Step time against diffusers on torch for the same work: `python benchmarks/vs_diffusers.py`.

The work: forward pass of the tiny FLUX transformer with a ControlNet (1 double, 1 single layer)
made from it, backward pass into the ControlNet, clipping by global norm, AdamW update, in
float32 on the CPU; batch 2, 512 text tokens, 16 image tokens; latents and embeddings are ready
arrays on the host, and the loss is read every step. This project's side runs the recipe's own
loss cell, compiled step and optimizer; the other side is `reference/torch_controlnet.py`.

Two processes take turns at blocks of steps, so that whatever else the machine does meets both.
Threads are as each framework sets them. That both do the same work is shown by the losses of
the first steps. torch lives in an environment of its own, made at the first call.

Prints a table and, as the last line, the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from blocks import Worker
from safetensors.numpy import save_file
from torch_environment import torch_python

HERE = Path(__file__).resolve().parent
PIPELINE = HERE.parent / "examples" / "quickstart" / "tiny-flux"
COMPARED_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=10, help="blocks per side (10)")
    parser.add_argument("--steps", type=int, default=10, help="steps per block (10)")
    parser.add_argument("--warmup", type=int, default=10, help="steps before (10)")
    parser.add_argument("--torch-python", help="a Python that has torch and diffusers already")
    arguments = parser.parse_args()
    warmup = max(arguments.warmup, COMPARED_STEPS)
    other_python = arguments.torch_python or torch_python()

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "batches.safetensors")
        write_batches(file)
        workers = {
            "this recipe": Worker([sys.executable, HERE / "step_mindspore.py", PIPELINE, file]),
            "diffusers": Worker([other_python, HERE / "step_torch.py", PIPELINE, file]),
        }
        first = {side: worker.run(warmup)[0] for side, worker in workers.items()}
        times: dict[str, list[list[float]]] = {side: [] for side in workers}
        for _ in range(arguments.blocks):
            for side, worker in workers.items():
                times[side].append(worker.run(arguments.steps)[1])
        for worker in workers.values():
            worker.close()

    ours, theirs = times.values()
    medians = {side: statistics.median(t for b in rows for t in b) for side, rows in times.items()}
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(ours, theirs)]
    ratio = statistics.median(ratios)
    difference = max(abs(a - b) for a, b in zip(*(v[:COMPARED_STEPS] for v in first.values())))

    print(f"{'':<14}{'median ms/step':>16}{'fastest':>10}{'threads':>9}  versions")
    for side, worker in workers.items():
        about, fastest = worker.about, min(t for b in times[side] for t in b)
        print(
            f"{side:<14}{medians[side]:>16.1f}{fastest:>10.1f}{about['threads']:>9}  "
            f"{about['versions']}"
        )
    print(f"ratio, median of {len(ratios)} pairs of blocks: {ratio:.3f} (limit 1.5)")
    print(f"losses of the first {COMPARED_STEPS} steps differ by at most {difference:.1e}")
    print(
        json.dumps(
            {
                "median_ms": medians,
                "ratio": ratio,
                "ratio_of_blocks": ratios,
                "loss_difference": difference,
                "first_losses": {side: v[:COMPARED_STEPS] for side, v in first.items()},
                "about": {side: worker.about for side, worker in workers.items()},
                "cpus": os.cpu_count(),
                "steps_per_side": arguments.blocks * arguments.steps,
            }
        )
    )


def write_batches(file: Path, batches: int = 4, batch: int = 2, text_length: int = 512) -> None:
    """Batches for both sides: random, of the size and scale of the parity reference."""
    rng = np.random.default_rng(0)
    height, width, channels, embedding = 4, 4, 64, 32

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((batches, batch, *shape)).astype(np.float32)

    timesteps = rng.integers(1, 1001, (batches, batch)).astype(np.float32)
    arrays = {
        "latents": 0.4 * normal(height * width, channels),
        "control_latents": 0.4 * normal(height * width, channels),
        "noise": normal(height * width, channels),
        "sigmas": timesteps / 1000,
        "timesteps": timesteps,
        "weights": np.ones_like(timesteps),
        "prompt_embeds": normal(text_length, embedding),
        "pooled_prompt_embeds": normal(embedding),
        "size": np.array([height, width]),
        "guidance_scale": np.float32(3.5),
        "learning_rate": np.float32(1e-3),
    }
    save_file({name: np.asarray(array) for name, array in arrays.items()}, file)


if __name__ == "__main__":
    main()
