"""Parameter dtype and computation dtype of a part.

MindSpore separates the two: `Cell.to_float` sets what a cell and its children compute in, while
parameters keep the dtype they are stored in. Trained parameters stay float32, because
optimizers update in the parameter's dtype.
"""

from __future__ import annotations

from typing import Any

from launcher.training.errors import UserError

#: The names that `mixed_precision` takes, and the MindSpore dtypes they stand for.
_DTYPES = {"no": "float32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def dtype_of(name: str) -> Any:
    """The MindSpore dtype for `no`, `fp32`, `fp16` or `bf16`."""
    import mindspore as ms

    return getattr(ms, _DTYPES[name])


def check(name: str, device: str) -> None:
    """Raise UserError if a device cannot compute in a precision."""
    if device == "CPU" and name == "bf16":
        raise UserError(
            "precision.mixed_precision is bf16, but the run is on the CPU, where MindSpore can "
            "store bfloat16 and not compute in it. Set precision.mixed_precision=no to compute in "
            "float32, or to fp16, which is slow there."
        )


def apply(models: Any, name: str) -> Any:
    """Keep frozen parts in the dtype of `name`, and those with trained parameters in float32; both
    compute in that dtype. The default of `apply_precision`.

    Args:
        models: a `hooks.types.Models`, whose parts know what is trained.
        name: as `dtype_of` takes it.

    Returns:
        The models.
    """
    dtype = dtype_of(name)
    for cell in models.cells().values():
        if cell.trainable_params():
            compute_in(cell, dtype)
        else:
            cast_parameters(cell, dtype)
    return models


def cast_parameters(cell: Any, dtype: Any) -> Any:
    """Keep every parameter of a cell in `dtype`; the cell then computes in it. Returns the cell."""
    for parameter in cell.get_parameters():
        parameter.set_dtype(dtype)
    return cell


def compute_in(cell: Any, dtype: Any) -> Any:
    """Let a cell compute in `dtype` while its parameters stay as they are. Returns the cell."""
    return cell.to_float(dtype)
