"""Step time against diffusers on torch for the same work: `python benchmarks/vs_diffusers.py`.

The work: forward pass of the tiny FLUX transformer with a ControlNet (1 double, 1 single layer)
made from it, backward pass into the ControlNet, clipping by global norm, AdamW update, in
float32 on the CPU; batch 2, 512 text tokens, 16 image tokens; latents and embeddings are ready
arrays on the host, and the loss is read every step. This project's side runs the recipe's own
loss cell, compiled step and optimizer; the other side is `reference/torch_controlnet.py`.

Two processes take turns at blocks of steps. Pairs of blocks during which other programs took more
than a twentieth of the machine are left out: they hit the two sides unequally. Threads are as each
framework sets them. That both do the same work is shown by the losses of
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
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blocks import Worker, busy_seconds
from safetensors.numpy import save_file
from torch_environment import torch_python

HERE = Path(__file__).resolve().parent
PIPELINE = HERE.parent / "tests" / "data" / "tiny-flux"
COMPARED_STEPS = 3
OURS, THEIRS = "this recipe", "diffusers"
#: Share of the machine's processor time up to which other programs do not disturb.
QUIET = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=20, help="blocks per side (20)")
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
            OURS: Worker([sys.executable, HERE / "step_mindspore.py", PIPELINE, file]),
            THEIRS: Worker([other_python, HERE / "step_torch.py", PIPELINE, file]),
        }
        first = {side: worker.run(warmup)[0] for side, worker in workers.items()}
        pairs = [measure(workers, arguments.steps) for _ in range(arguments.blocks)]
        for worker in workers.values():
            worker.close()

    quiet = [pair for pair in pairs if pair.others <= QUIET]
    used = quiet if len(quiet) >= 3 else pairs
    ratio = statistics.median(pair.ratio for pair in used)
    difference = max(abs(a - b) for a, b in zip(*(v[:COMPARED_STEPS] for v in first.values())))
    times = {side: [t for pair in used for t in pair.times[side]] for side in workers}

    print(f"{'':<14}{'median ms/step':>16}{'fastest':>10}{'threads':>9}  versions")
    for side, worker in workers.items():
        print(
            f"{side:<14}{statistics.median(times[side]):>16.1f}{min(times[side]):>10.1f}"
            f"{worker.about['threads']:>9}  {worker.about['versions']}"
        )
    print(f"ratio, median of {len(used)} pairs of blocks: {ratio:.3f} (limit 1.5)")
    print(f"losses of the first {COMPARED_STEPS} steps differ by at most {difference:.1e}")
    if used is quiet:
        print(f"left out: {len(pairs) - len(quiet)} pairs during which the machine was busy")
    else:
        print(
            "THE MACHINE WAS BUSY with other programs, which hits two threads in lockstep hardest: "
            "these figures mean little. Run it again when nothing else runs."
        )
    print(
        json.dumps(
            {
                "median_ms": {side: statistics.median(ts) for side, ts in times.items()},
                "fastest_ms": {side: min(ts) for side, ts in times.items()},
                "ratio": ratio,
                "ratio_of_fastest": min(times[OURS]) / min(times[THEIRS]),
                "ratio_of_pairs": [round(pair.ratio, 3) for pair in pairs],
                "others_cpu_share_of_pairs": [round(pair.others, 3) for pair in pairs],
                "quiet": used is quiet,
                "pairs_used": len(used),
                "steps_per_block": arguments.steps,
                "loss_difference": difference,
                "first_losses": {side: v[:COMPARED_STEPS] for side, v in first.items()},
                "about": {side: worker.about for side, worker in workers.items()},
                "cpus": os.cpu_count(),
            }
        )
    )


@dataclass(frozen=True)
class Pair:
    """A block of steps on either side, one after the other.

    Attributes:
        times: milliseconds of each step, by side.
        others: share of the machine's processor time that went to other programs meanwhile.
    """

    times: dict[str, list[float]]
    others: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.times[OURS]) / statistics.median(self.times[THEIRS])


def measure(workers: dict[str, Worker], steps: int) -> Pair:
    """Run a block of steps on either side."""

    def foreign_seconds() -> float:
        return busy_seconds() - sum(worker.cpu_seconds() for worker in workers.values())

    before, start = foreign_seconds(), time.perf_counter()
    times = {side: worker.run(steps)[1] for side, worker in workers.items()}
    available = (time.perf_counter() - start) * (os.cpu_count() or 1)
    return Pair(times, max(foreign_seconds() - before, 0.0) / available)


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
