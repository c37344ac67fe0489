"""LoRA adapters: added through mindone's PEFT support, and exported for diffusers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_common import loading
from flux_common.adapter_targets import unmatched
from flux_common.export import write_parameters
from launcher.training.errors import UserError
from launcher.training.random import generator

if TYPE_CHECKING:
    from mindspore import nn

#: diffusers' name of the file that `FluxPipeline.load_lora_weights` looks for.
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

#: The layers of CLIP that get an adapter, as in diffusers' script.
CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")

_ADAPTER = "default"  # PEFT's name for it; it stands in parameters' names, but not in files


def add_adapters(
    model: nn.Cell, targets: Sequence[str], *, rank: int, lora_alpha: int, seed: int
) -> None:
    """Add an adapter to every target layer of a model: `x W + (lora_alpha / rank) x A B`.

    A is drawn from N(0, 1/rank^2) (PEFT's `gaussian`), as a function of the seed and the layer's
    name, and B is zero, so that at first the model computes what it did. float32.

    Raises:
        UserError: a target matches no layer.
    """
    import mindspore as ms
    import numpy as np
    from mindspore import mint, nn

    with loading.quiet():
        from mindone.peft import LoraConfig

    linear = (
        n for n, cell in model.cells_and_names() if isinstance(cell, (mint.nn.Linear, nn.Dense))
    )
    problems = unmatched(targets, linear)
    if problems:
        raise UserError(" ".join(problems))
    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        init_lora_weights="gaussian",
        target_modules=list(targets),
    )
    with loading.quiet():
        model.add_adapter(config)
    for name, parameter in parameters(model).items():
        value = np.zeros(parameter.shape, np.float32)
        if ".lora_A." in name:
            draws = generator(seed, f"adapter {name}")
            value = draws.standard_normal(parameter.shape, dtype=np.float32) / np.float32(rank)
        parameter.set_data(ms.Tensor(value))


def layers(model: nn.Cell) -> Iterator[nn.Cell]:
    """The linear layers A and B of every adapter."""
    for name, cell in model.cells_and_names():
        if re.search(rf"\.lora_[AB]\.{_ADAPTER}$", name):
            yield cell


def parameters(model: nn.Cell) -> dict[str, Any]:
    """The adapters' parameters, by the names that they have in diffusers' files."""
    return {
        name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in model.parameters_and_names()
        if re.search(rf"\.lora_[AB]\.{_ADAPTER}\.", name)
    }


def export_adapters(models: Mapping[str, nn.Cell], directory: Path) -> Path:
    """Write `pytorch_lora_weights.safetensors`, whole or not at all.

        FluxPipeline.from_pretrained(base).load_lora_weights(directory)   # diffusers on torch

    Args:
        models: the models with adapters, by their names in a pipeline (`transformer`,
            `text_encoder`), which the names in the file begin with.
        directory: exists.

    `lora_alpha` goes into the header, where diffusers 0.35 and newer read it; older versions take
    it to be the rank.
    """
    weights, about = {}, {}
    for part, model in models.items():
        config = model.peft_config[_ADAPTER]
        weights.update({f"{part}.{name}": p for name, p in parameters(model).items()})
        about |= {
            f"{part}.r": config.r,
            f"{part}.lora_alpha": config.lora_alpha,
            f"{part}.target_modules": sorted(config.target_modules),
            f"{part}.rank_pattern": {},
            f"{part}.alpha_pattern": {},
        }
    path = Path(directory) / WEIGHTS_FILE
    partial = path.with_name(f".{path.name}.partial")
    header = {"lora_adapter_metadata": json.dumps(about, indent=2, sort_keys=True)}
    write_parameters(partial, weights, metadata=header)
    os.replace(partial, path)
    return path


def export_problems(output_dir: str) -> list[str]:
    """What `export_adapters` would replace, although it is no run's of this recipe."""
    path = Path(output_dir).expanduser() / WEIGHTS_FILE
    if not path.exists():
        return []
    return [
        f"train.output_dir {output_dir!r} has a file {WEIGHTS_FILE} in it, which is where this run "
        f"would write its weights. Choose another train.output_dir, or move the file away."
    ]
