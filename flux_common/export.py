"""Writing models, and parameters by themselves, so that diffusers loads them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launcher.training import atomic, safetensors_files

if TYPE_CHECKING:
    import numpy as np

#: diffusers' names of the files in a model's folder.
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

_FILE_DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


def export_model(
    model: Any, folder: Path, *, dtype: Literal["fp32", "bf16", "fp16"] | None = None
) -> list[Path]:
    """Write a model's folder in diffusers' layout: config.json and the weights.

    The folder appears whole or not at all; one that is there already is replaced.

    Args:
        model: a model of `mindone.diffusers`, whose class is called as diffusers' is.
        folder: where; its parent exists.
        dtype: of the weights in the file; None: as the parameters are.

    Returns:
        The two files.
    """
    from flux_common.loading import file_names

    with atomic.folder(folder, replace=True) as work:
        (work / CONFIG_FILE).write_text(json.dumps(_config(model), indent=2) + "\n")
        write_parameters(work / WEIGHTS_FILE, file_names(model), dtype=dtype)
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


def write_parameters(
    path: Path,
    parameters: Mapping[str, Any],
    *,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write parameters one at a time, sorted by name; only one is in host memory.

    Args:
        path: the new file.
        parameters: `mindspore.Parameter` by the name it is to have in the file.
        dtype: of the weights in the file; None: as the parameters are.
        metadata: strings for the header besides `format`.
    """
    tensors = {
        name: safetensors_files.TensorInfo(_file_dtype(p, dtype), tuple(p.shape))
        for name, p in sorted(parameters.items())
    }
    safetensors_files.write(
        path,
        tensors,
        lambda name: _as_file_dtype(as_float32(parameters[name]), tensors[name].dtype),
        metadata={"format": "pt", **(metadata or {})},
    )


def as_float32(parameter: Any) -> np.ndarray[Any, Any]:
    """A parameter's value as a numpy array, float32 whatever it is kept in."""
    import mindspore as ms

    return parameter.value().astype(ms.float32).asnumpy()


def _file_dtype(parameter: Any, dtype: str | None) -> str:
    if dtype is not None:
        return _FILE_DTYPES[dtype]
    return {"Float32": "F32", "BFloat16": "BF16", "Float16": "F16"}[str(parameter.dtype)]


def _as_file_dtype(value: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    import ml_dtypes
    import numpy as np

    return value.astype({"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[dtype])
