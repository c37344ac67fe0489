"""What is recorded of a case: loss, gradients, and a few steps of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fixed_batch import save
from torch import Tensor, nn
from torch_controlnet import AdamWStep

LEARNING_RATE = 1e-3
ADAMW = dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)


@dataclass(frozen=True)
class Run:
    """A training run: the inputs of every step, and after which of them weights are kept."""

    name: str
    inputs: Sequence[tuple[Tensor, ...]]
    kept: tuple[int, ...]
    clip: float = 1.0


def fixed_batch_runs(inputs: tuple[Tensor, ...], clip_hard: bool) -> list[Run]:
    """Three steps on one batch; on request once more with a clipping that bites."""
    runs = [Run("fixed_batch", [inputs] * 3, (1, 2, 3))]
    if clip_hard:
        runs.append(Run("fixed_batch_clip0.05", [inputs] * 3, (3,), clip=0.05))
    return runs


def record_case(
    folder: Path,
    start: Callable[[], nn.Module],
    trained: Callable[[Any], Mapping[str, nn.Parameter]],
    about: dict[str, Any],
    runs: Sequence[Run],
    compact: bool,
    details: Callable[[Mapping[str, Any]], dict[str, Tensor]] = lambda found: {},
) -> None:
    """Write `outputs.safetensors`, `meta.json` and `params_*.safetensors`.

    Args:
        start: the loss module at the case's start weights; called for every run.
        trained: its trained parameters, by the names they are recorded under.
        about: what `meta.json` is to say besides.
        runs: the first step of the first is what loss and gradients are recorded of.
        compact: leave out what `parity.py` can do without.
        details: what is recorded of the loss module's intermediate results.
    """
    loss_module = start()
    loss, found = loss_module(*runs[0].inputs[0])
    loss.backward()
    gradients = {name: p.grad for name, p in trained(loss_module).items()}
    present = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    norm = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(gradient) for gradient in present.values()])
    )
    outputs = {
        "loss": loss,
        "noise_pred": found["noise_pred"],
        "grad_norm": norm,
        **{f"grad/{name}": gradient for name, gradient in present.items()},
        **details(found),
    }
    meta = about | {
        "loss": loss.item(),
        "grad_norm": norm.item(),
        "n_params": len(gradients),
        "grads_none": [name for name in gradients if name not in present],
        "grads_all_zero": [name for name, gradient in present.items() if not gradient.any()],
    }
    for run in runs:
        loss_module = start()
        train_step = AdamWStep(
            loss_module, learning_rate=LEARNING_RATE, max_grad_norm=run.clip, **ADAMW
        )
        losses, norms = [], []
        for number, arguments in enumerate(run.inputs, start=1):
            value, norm_value = train_step(*arguments)
            losses.append(value)
            norms.append(norm_value)
            if number in run.kept and not compact:
                file = folder / f"params_{run.name}_after_{number}.safetensors"
                save(trained(loss_module), file)
        key = run.name.replace("0.", "0")
        meta |= {f"losses_{key}": losses, f"grad_norms_{key}": norms}
        outputs |= {
            f"losses_{key}": torch.tensor(losses),
            f"grad_norms_{key}": torch.tensor(norms),
        }
    if compact:
        outputs = {n: t for n, t in outputs.items() if n in ("loss", "noise_pred") or "grad/" in n}
    save(outputs, folder / "outputs.safetensors")
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
