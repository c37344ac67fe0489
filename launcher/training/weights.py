"""Writing parameters as safetensors files, in the dtype asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launcher.training import safetensors_files

if TYPE_CHECKING:
    import numpy as np

_FILE_DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


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


def as_float32(tensor: Any) -> np.ndarray[Any, Any]:
    """The value of a parameter or tensor as a numpy array, float32 whatever it is kept in."""
    import mindspore as ms

    return tensor.astype(ms.float32).asnumpy()


def _file_dtype(parameter: Any, dtype: str | None) -> str:
    if dtype is not None:
        return _FILE_DTYPES[dtype]
    return {"Float32": "F32", "BFloat16": "BF16", "Float16": "F16"}[str(parameter.dtype)]


def _as_file_dtype(value: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    import ml_dtypes
    import numpy as np

    return value.astype({"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[dtype])
