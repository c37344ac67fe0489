"""LoRA adapters: added through mindone's PEFT support, and exported for diffusers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flux_common import loading, lora_file
from flux_common.adapter_targets import unmatched
from flux_common.lora_file import WEIGHTS_FILE, LoraPart, fit_problems
from launcher.training import sizes_only
from launcher.training.errors import UserError
from launcher.training.random import generator
from launcher.training.weights import Values, read_into, write_parameters

if TYPE_CHECKING:
    from mindspore import nn

#: The layers of CLIP that get an adapter, as in diffusers' script.
CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")

_ADAPTER = "default"  # PEFT's name for it; it stands in parameters' names, but not in files


def add_adapters(
    model: nn.Cell, targets: Sequence[str], *, rank: int, lora_alpha: int, seed: int
) -> None:
    """Add an adapter to every target layer of a model: `x W + (lora_alpha / rank) x A B`.

    A is drawn from N(0, 1/rank^2) (PEFT's `gaussian`), as a function of the seed and the layer's
    name, not by PEFT, and B is zero, so that at first the model computes what it did. float32.

    Raises:
        UserError: a target matches no layer.
    """
    import mindspore as ms
    import numpy as np

    problems = unmatched(targets, _linear_layers(model))
    if problems:
        raise UserError(" ".join(problems))
    _add(model, list(targets), rank, lora_alpha)
    if sizes_only.is_wanted():
        return
    for name, parameter in parameters(model).items():
        value = np.zeros(parameter.shape, np.float32)
        if ".lora_A." in name:
            draws = generator(seed, f"adapter {name}")
            value = draws.standard_normal(parameter.shape, dtype=np.float32) / np.float32(rank)
        parameter.set_data(ms.Tensor(value))


def load_adapters(model: nn.Cell, lora: LoraPart, base: str) -> None:
    """Add the adapters of a LoRA file to a model, with their values; float32.

    Raises:
        UserError: the LoRA is not for this model, which is that of the pipeline `base`.
    """
    problems = fit_problems(lora, _linear_layers(model), base)
    if problems:
        raise UserError(" ".join(problems))
    _add(model, list(lora.layers), lora.rank, lora.lora_alpha)
    named = {f"{lora.part}.{name}": parameter for name, parameter in parameters(model).items()}
    read_into(named, [lora.file])


def _add(model: Any, layers: list[str], rank: int, lora_alpha: float) -> None:
    from mindspore.nn.utils import no_init_parameters

    # Whoever calls this sets the values.
    with loading.quiet(), no_init_parameters():
        from mindone.peft import LoraConfig

        config = LoraConfig(r=rank, lora_alpha=lora_alpha, target_modules=layers)
        model.add_adapter(config)


def _linear_layers(model: nn.Cell) -> dict[str, tuple[int, int]]:
    """(out, in) features of the linear layers by name."""
    from mindspore import mint, nn

    linear = (mint.nn.Linear, nn.Dense)
    return {n: tuple(c.weight.shape) for n, c in model.cells_and_names() if isinstance(c, linear)}


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


def export_adapters(
    models: Mapping[str, nn.Cell],
    directory: Path,
    *,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    values: Values | None = None,
) -> Path:
    """Write `pytorch_lora_weights.safetensors`, whole or not at all.

        FluxPipeline.from_pretrained(base).load_lora_weights(directory)   # diffusers on torch

    Args:
        models: the models with adapters, by their names in a pipeline (`transformer`,
            `text_encoder`), which the names in the file begin with.
        directory: exists.
        dtype: of the weights in the file; None: as the parameters are.
        values: what to write of each parameter; None: what it is now.

    `lora_alpha` goes into the header, where diffusers 0.35 and newer read it; older versions take
    it to be the rank.
    """
    weights = {}
    for part, model in models.items():
        weights.update({f"{part}.{name}": p for name, p in parameters(model).items()})
    path = Path(directory) / WEIGHTS_FILE
    partial = path.with_name(f".{path.name}.partial")
    settings = {part: model.peft_config[_ADAPTER] for part, model in models.items()}
    metadata = lora_file.metadata(settings)
    write_parameters(partial, weights, dtype=dtype, metadata=metadata, values=values)
    os.replace(partial, path)
    return path
