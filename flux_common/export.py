"""Writing models so that diffusers loads them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Literal

from launcher.training import atomic
from launcher.training.weights import Values, write_parameters

#: diffusers' names of the files in a model's folder.
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def export_model(
    model: Any,
    folder: Path,
    *,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    values: Values | None = None,
) -> list[Path]:
    """Write a model's folder in diffusers' layout: config.json and the weights.

    The folder appears whole or not at all; one that is there already is replaced.

    Args:
        model: a model of `mindone.diffusers`, whose class is called as diffusers' is.
        folder: where; its parent exists.
        dtype: of the weights in the file; None: as the parameters are.
        values: what to write of each parameter; None: what it is now.

    Returns:
        The two files.
    """
    from flux_common.loading import file_names

    with atomic.folder(folder, replace=True) as work:
        (work / CONFIG_FILE).write_text(json.dumps(_config(model), indent=2) + "\n")
        write_parameters(work / WEIGHTS_FILE, file_names(model), dtype=dtype, values=values)
    return [folder / CONFIG_FILE, folder / WEIGHTS_FILE]


def _config(model: Any) -> dict[str, Any]:
    """The arguments of the class and what diffusers itself adds; nothing that is left over from
    a model it was made from, and no path of this machine."""
    arguments = list(inspect.signature(type(model).__init__).parameters)[1:]
    about = {
        "_class_name": type(model).__name__,
        "_diffusers_version": model.config["_diffusers_version"],
    }
    return about | {name: model.config[name] for name in sorted(arguments)}
