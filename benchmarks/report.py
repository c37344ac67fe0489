"""What the precision report costs: `python benchmarks/report.py`.

Builds the networks of circles.yaml, compiles the training step as a run does, and times the
report on it: taking in the parts, reading the compiled graph, comparing, and making the table.
Prints the median of five for each precision, in seconds, beside the time of the compilation. The
report is made once, before the first step; a step knows nothing of it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TINY_FLUX = str(Path(__file__).resolve().parent.parent / "tests" / "data" / "tiny-flux")
BATCH, SIDE, TEXT = 4, 4, 512  # 64 x 64 pixels, as there
REPEATS = 5


def main() -> None:
    if len(sys.argv) > 1:
        compiling, reporting = measure(sys.argv[1])
        print(f"{sys.argv[1]:<6}{reporting:>10.2f}{compiling:>14.1f}", flush=True)
        return
    print(f"{'':<6}{'report, s':>10}{'compiling, s':>14}", flush=True)
    for precision in ("no", "fp16", "bf16"):  # each in a process of its own
        subprocess.run([sys.executable, __file__, precision], check=True, stderr=subprocess.DEVNULL)


def measure(mixed_precision: str) -> tuple[float, float]:
    """(seconds to compile the step, seconds of the report)."""
    from launcher import quiet

    quiet.install(verbose=False)

    from flux_common.loading import load_transformer
    from flux_controlnet_plugin.controlnet import controlnet_from_transformer
    from flux_controlnet_plugin.loss import FluxControlNetLoss
    from hooks.types import Models
    from launcher.training import device, precision
    from launcher.training.freeze import freeze
    from launcher.training.optim import AdamW
    from launcher.training.precision.report import Report
    from launcher.training.step import TrainStep, dynamic_loss_scaler

    device.set_up("CPU", 0, "graph")
    transformer = load_transformer(TINY_FLUX)
    controlnet = controlnet_from_transformer(transformer, 2, 1)
    freeze([transformer])
    models = Models(transformer=transformer, controlnet=controlnet)
    precision.apply(models, precision.Policy.of(mixed_precision))
    sizes = dict(text_length=TEXT, guidance_scale=3.5)
    loss = FluxControlNetLoss(controlnet, transformer, **sizes)
    optimizer = AdamW(list(controlnet.trainable_params()))
    scaler = dynamic_loss_scaler() if mixed_precision == "fp16" else None
    step = TrainStep(loss, optimizer, max_grad_norm=1.0, loss_scaler=scaler)

    started = time.perf_counter()
    cell = step.compile(micro_batch(transformer.config))
    compiling = time.perf_counter() - started
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        report = Report()
        report.add(models.cells())
        report.observe_compiled(cell)
        problems = report.problems(loss_scaling=scaler is not None, optimizer=optimizer)
        table = report.table()
        seconds.append(time.perf_counter() - started)
        assert problems == [] and "attention" in table
    return compiling, statistics.median(seconds)


def micro_batch(config: object) -> list[np.ndarray]:
    """Arrays of these shapes."""
    from flux_common.latents import image_ids

    rng = np.random.default_rng(0)
    latents = [rng.standard_normal((BATCH, SIDE * SIDE, 64), dtype=np.float32) for _ in range(3)]
    sigmas = rng.random(BATCH, dtype=np.float32)
    prompt_embeds = rng.standard_normal((BATCH, TEXT, config.joint_attention_dim), dtype=np.float32)
    pooled = rng.standard_normal((BATCH, config.pooled_projection_dim), dtype=np.float32)
    weights = np.ones(BATCH, np.float32)
    ids = image_ids(SIDE, SIDE)
    return [*latents, sigmas, 1000 * sigmas, weights, prompt_embeds, pooled, ids]


if __name__ == "__main__":
    main()
