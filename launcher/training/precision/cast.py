"""Parameter dtype and computation dtype of a part.

MindSpore separates the two: `Cell.to_float` sets what a cell and its children compute in, while
parameters keep the dtype they are stored in. Trained parameters stay float32, because
optimizers update in the parameter's dtype.

On the CPU bfloat16 is emulated (`launcher.cpu.bf16`): parameters can be kept in it, tensors are
float32 and hold its values. float16 has real kernels everywhere.
"""

from __future__ import annotations

from typing import Any

#: The names that `mixed_precision` takes, and the MindSpore dtypes they stand for.
_DTYPES = {"no": "float32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def dtype_of(name: str) -> Any:
    """The MindSpore dtype for `no`, `fp32`, `fp16` or `bf16`."""
    import mindspore as ms

    return getattr(ms, _DTYPES[name])


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


def cast_parameters(cell: Any, dtype: Any, *, frozen_only: bool = False) -> Any:
    """Keep every parameter of a cell in `dtype`; the cell then computes in it. Returns the cell.

    Args:
        frozen_only: leave those that are trained as they are.
    """
    from launcher.training import device

    if device.emulates(dtype):
        device.emulate_bf16(cell)
    for parameter in cell.get_parameters():
        if not (frozen_only and parameter.requires_grad):
            parameter.set_dtype(dtype)
    return cell


def compute_in(cell: Any, dtype: Any) -> Any:
    """Let a cell compute in `dtype` while its parameters stay as they are. Returns the cell."""
    from launcher.training import device

    if device.emulates(dtype):
        device.emulate_bf16(cell)
        return cell
    return cell.to_float(dtype)


def activation_dtype(cell: Any) -> Any:
    """The dtype that a cell wants its inputs in: that of its own parameters (adapters come after
    them), or float32 where that dtype is emulated."""
    import mindspore as ms

    from launcher.training import device

    dtype = next(iter(cell.get_parameters())).dtype
    return ms.float32 if device.emulates(dtype) else dtype
