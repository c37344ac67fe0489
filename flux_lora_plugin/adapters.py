"""LoRA adapters: checked, added through mindone's PEFT support, and exported for diffusers."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_common import loading, pipeline_folder
from flux_common.export import write_parameters
from launcher.training.errors import UserError
from launcher.training.random import generator
from launcher.training.safetensors_files import read_header

if TYPE_CHECKING:
    from mindspore import nn

#: diffusers' name of the file that `FluxPipeline.load_lora_weights` looks for.
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

#: The layers of CLIP that get an adapter, as in diffusers' script.
CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")

_ADAPTER = "default"  # PEFT's name for it; it stands in parameters' names, but not in files


# -------------------------------------------------------------------------------------------
# Which layers
# -------------------------------------------------------------------------------------------


def target_problems(
    pretrained_model_name_or_path: str, targets: Sequence[str], variant: str | None = None
) -> list[str]:
    """What is wrong with the targets, seen from the headers of the transformer's weights.

    Names on the hub are left alone; `add_adapters` checks them when the model is there.
    """
    folder = Path(pretrained_model_name_or_path).expanduser() / "transformer"
    try:
        files = pipeline_folder.weight_files(folder, variant)
        headers = [read_header(file) for file in files]
    except (UserError, OSError):
        return []  # not local, or `pipeline_folder.problems` has more to say
    layers = [
        name.removesuffix(".weight")
        for header in headers
        for name, info in header.items()
        if name.endswith(".weight") and len(info.shape) == 2
    ]
    return unmatched(targets, layers)


def unmatched(targets: Iterable[str], layers: Iterable[str]) -> list[str]:
    """Problems: targets that are neither a layer's name nor the end of one.

    Args:
        targets: as in PEFT's `target_modules`: `to_q` stands for every layer called `...to_q`.
        layers: the names of the linear layers.
    """
    layers = list(layers)
    endings: dict[str, None] = {}
    for layer in layers:
        # The parts behind the block's number: attn.to_out.0, to_out.0; never 0 alone.
        parts = re.sub(r"^(single_)?transformer_blocks\.\d+\.", "", layer).split(".")
        endings.update(
            (".".join(parts[i:]), None) for i in range(len(parts)) if not parts[i].isdigit()
        )
    problems = []
    for target in targets:
        if any(layer == target or layer.endswith(f".{target}") for layer in layers):
            continue
        near = difflib.get_close_matches(target, endings, n=3, cutoff=0.5)
        guess = (
            f"Did you mean {' or '.join(near)}?"
            if near
            else (f"It has, for example, {', '.join(list(endings)[:4])}.")
        )
        problems.append(
            f"model.lora_layers names {target!r}, but no linear layer of the transformer has a "
            f"name that ends so. {guess}"
        )
    return problems


# -------------------------------------------------------------------------------------------
# Adding
# -------------------------------------------------------------------------------------------


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
    from mindspore import mint

    with loading.quiet():
        from mindone.peft import LoraConfig

    linear = (n for n, cell in model.cells_and_names() if isinstance(cell, mint.nn.Linear))
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


# -------------------------------------------------------------------------------------------
# Export
# -------------------------------------------------------------------------------------------


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
