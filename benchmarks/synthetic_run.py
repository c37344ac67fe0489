"""The folder of a run as the launcher leaves it, with figures that nothing was trained for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml


def make(
    folder: Path,
    steps: int = 1000,
    *,
    validations: int = 0,
    prompts: int = 2,
    side: int = 64,
    seed: int = 0,
    **options: object,
) -> Path:
    """Write a run.

    Args:
        folder: to be made.
        steps: lines of metrics.jsonl.
        validations: evenly spread over the steps, with images.
        prompts: images in a validation.
        side: of an image, in pixels.
        seed: of the figures.
        options: of the section `train`, in config.yaml.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    _metrics(folder, steps, rng)
    if validations:
        at = np.linspace(steps / validations, steps, validations).astype(int)
        _validations(folder / "validation", [int(step) for step in at], prompts, side, rng)
    settings = {"max_train_steps": steps, "learning_rate": 1e-5, "seed": seed, **options}
    config = {"recipe": "flux_controlnet", "train": settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "provenance.json").write_text(json.dumps(_PROVENANCE))
    (folder / "precision.json").write_text(json.dumps(_PRECISION))
    weights = folder / "controlnet" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(1000))
    exported = {"step": steps, "files": [str(weights.relative_to(folder))]}
    (folder / "exported.json").write_text(json.dumps(exported))
    return folder


def _metrics(folder: Path, steps: int, rng: np.random.Generator) -> None:
    number = np.arange(1, steps + 1)
    loss = (0.35 + 0.5 / (1 + number * 20 / steps)) * rng.lognormal(0, 0.25, steps)
    rate = 1e-5 * np.minimum(1, number / max(1, steps // 20))
    norm = 0.4 * rng.lognormal(0, 0.4, steps)
    norm[steps // 3] = 30
    seconds = 0.8 + rng.gamma(2, 0.02, steps)
    stall = rng.beta(1, 60, steps)
    memory = np.where(number < steps / 4, 29_500_000_000, 31_200_000_000)
    scale = 2.0 ** np.clip(16 + number * 6 // steps, 0, 20)
    columns = zip(*(c.tolist() for c in (loss, rate, norm, seconds, stall, memory, scale)))
    with open(folder / "metrics.jsonl", "w") as file:
        for step, (l, lr, g, s, w, m, x) in enumerate(columns, 1):  # noqa: E741
            record = {
                "step": step,
                "loss": l,
                "lr": lr,
                "grad_norm": g,
                "step_seconds": s,
                "stall_share": w,
                "samples_per_second": 4 / s,
                "skipped": False,
                "memory_bytes": m,
                "loss_scale": x,
            }
            file.write(json.dumps(record) + "\n")


def _validations(
    folder: Path, steps: list[int], prompts: int, side: int, rng: np.random.Generator
) -> None:
    from PIL import Image

    folder.mkdir()
    lines, y_x = [], np.mgrid[:side, :side] / side
    for number in range(prompts):
        picture = (255 * _rings(y_x, number)).astype(np.uint8)
        edges = (np.abs(np.gradient(picture.astype(float))[0]) > 6) * np.uint8(255)
        Image.fromarray(edges).save(folder / f"control-{number}.png")
        Image.fromarray(np.stack([picture, 255 - picture, picture // 2], -1)).save(
            folder / f"target-{number}.png"
        )
    for index, step in enumerate(steps):
        done = (index + 1) / len(steps)
        lines.append(
            {
                "step": step,
                "loss": 0.7 - 0.3 * done + 0.01 * rng.standard_normal(),
                "loss_without_control": 0.7 - 0.1 * done + 0.01 * rng.standard_normal(),
                "loss_shuffled_control": 0.7 - 0.05 * done + 0.01 * rng.standard_normal(),
                "residual_norm": 0.08 * done,
                "samples": 16,
                "seconds": 12.5,
            }
        )
        images = folder / f"step-{step:06d}"
        images.mkdir()
        for number in range(prompts):
            noise = rng.random((side, side, 3))
            rings = _rings(y_x, number)[..., None] * np.array([1, 0.7, 0.4])
            mixed = 255 * (done * rings + (1 - done) * noise)
            Image.fromarray(mixed.astype(np.uint8)).save(images / f"prompt-{number}.png")
    (folder / "figures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entries = [
        {
            "prompt": f"rings of a tree, number {number}",
            "control": f"control-{number}.png",
            "target": f"target-{number}.png",
        }
        for number in range(prompts)
    ]
    (folder / "prompts.json").write_text(json.dumps(entries))


def _rings(y_x: np.ndarray, number: int) -> np.ndarray:
    """(H, W) from 0 to 1."""
    distance = np.hypot(y_x[0] - 0.4, y_x[1] - 0.3 - 0.1 * number)
    return 0.5 + 0.5 * np.cos(distance * (20 + 6 * number))


_PROVENANCE = {
    "command_line": ["--recipe", "flux_controlnet", "--config", "my_run.yaml"],
    "started": "2026-01-01T00:00:00Z",
    "seed": 0,
    "device": "CPU",
    "world_size": 1,
    "recipe": "flux_controlnet",
    "python": {"version": "3.11.7"},
    "platform": {"system": "Linux", "release": "6.1", "machine": "x86_64", "cpus": 2},
    "plugins": [{"name": "flux_controlnet", "file": "recipe.py", "sha256": "ab" * 32}],
    "packages": {"mindspore": "2.10.0", "mindone": "0.5.0", "numpy": "1.26.4"},
}

_PART = {
    "stored": {"bfloat16": {"parameters": 11_900_000_000, "bytes": 23_800_000_000}},
    "trained": {},
    "asked": {"computation": "bfloat16", "attention": "bfloat16", "trained": False},
    "emulated": False,
    "observed": {"matmul": {"bfloat16": 500}, "normalisation": {"float32": 12, "bfloat16": 11}},
}
_TRAINED = {"float32": {"parameters": 1_400_000_000, "bytes": 5_600_000_000}}
_PRECISION = {
    "parts": {
        "transformer": _PART,
        "controlnet": {**_PART, "stored": _TRAINED, "trained": _TRAINED},
    },
    "notes": [],
}
