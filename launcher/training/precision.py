"""Parameter dtype and computation dtype of a part.

MindSpore separates the two: `Cell.to_float` sets what a cell and its children compute in, while
parameters keep the dtype they are stored in. Trained parameters stay float32, because
optimizers update in the parameter's dtype.
"""

from __future__ import annotations

from typing import Any

#: The names that `mixed_precision` takes, and the MindSpore dtypes they stand for.
_DTYPES = {"no": "float32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def dtype_of(name: str) -> Any:
    """The MindSpore dtype for `no`, `fp32`, `fp16` or `bf16`."""
    import mindspore as ms

    return getattr(ms, _DTYPES[name])


def cast_parameters(cell: Any, dtype: Any) -> Any:
    """Keep every parameter of a cell in `dtype`; the cell then computes in it. Returns the cell."""
    for parameter in cell.get_parameters():
        parameter.set_dtype(dtype)
    return cell


def compute_in(cell: Any, dtype: Any) -> Any:
    """Let a cell compute in `dtype` while its parameters stay as they are. Returns the cell."""
    return cell.to_float(dtype)
