"""Reading parameters from safetensors files and writing them, in the dtype asked for.

A model can be built without values (`mindspore.nn.utils.no_init_parameters`), frozen, cast, and
only then filled: every tensor goes from the file into the dtype that the parameter has by then,
and no other copy of the model is ever in memory.

    weights.defer(model, Origin(files, config), read)   # what is built without values
    ...                                                  # freeze, cast
    weights.load([model])                                # now they are read
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launcher.training import safetensors_files
from launcher.training.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_FILE_DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


#: What is to be written of a parameter: an array of its shape, in a float dtype.
Values = Callable[[Any], "np.ndarray[Any, Any]"]

_ORIGIN = "_weights_origin"
_PENDING = "_weights_pending"


@dataclass(frozen=True)
class Origin:
    """What makes a model what it is.

    Attributes:
        files: safetensors files that its parameters are read from.
        config: its configuration, as in config.json.
    """

    files: tuple[Path, ...]
    config: Mapping[str, Any]


def defer(cell: Any, origin: Origin, read: Callable[[], None]) -> None:
    """Let `load` give a cell its values, and note where they come from.

    Args:
        cell: built without values.
        read: sets every parameter of the cell, in the dtype that it has then.
    """
    cell.__dict__[_ORIGIN] = origin
    cell.__dict__[_PENDING] = read


def load(cells: Iterable[Any]) -> None:
    """Read the values that these cells, and cells in them, do not have yet."""
    for cell in cells:
        for part in _pending(cell):
            part.__dict__.pop(_PENDING)()


def require_loaded(cell: Any) -> None:
    """Raise RuntimeError if a cell's values have not been read: MindSpore would make some up."""
    names = [type(part).__name__ for part in _pending(cell)]
    if names:
        raise RuntimeError(
            f"the weights of {', '.join(names)} have not been read; call "
            "launcher.training.weights.load after apply_precision"
        )


def origin_of(cell: Any) -> Origin | None:
    """Where a cell's values come from; None: it was not read from files, or not by `defer`."""
    origin: Origin | None = cell.__dict__.get(_ORIGIN)
    return origin


def read_into(parameters: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Set parameters from safetensors files, one tensor at a time, in the dtype that they have.

    Args:
        parameters: by their names in the files; other names in the files are left out.

    Raises:
        UserError: one of them is in none of the files.
    """
    missing = set(parameters)
    for file in files:
        for name, value in safetensors_files.read_tensors(file, parameters.keys()):
            set_value(parameters[name], value)
            missing.discard(name)
    if missing:
        raise UserError(
            f"{', '.join(map(str, files))} hold no {', '.join(sorted(missing)[:5])}: they have "
            "changed since they were checked. Start again."
        )


def numpy_dtype(parameter: Any) -> np.dtype[Any]:
    """numpy's name for the dtype of a parameter; bfloat16 is `ml_dtypes`'."""
    return safetensors_files.numpy_dtype(_file_dtype(parameter, None))


def set_value(parameter: Any, value: np.ndarray[Any, Any]) -> None:
    """Fill a parameter, in the dtype that it has.

    Args:
        value: of its shape.
    """
    import mindspore as ms

    parameter.set_data(ms.Tensor(_cast(value, parameter)))


def set_to_zero(parameter: Any) -> None:
    """Fill a parameter with zeros, in the dtype that it has."""
    import numpy as np

    set_value(parameter, np.zeros(parameter.shape, numpy_dtype(parameter)))


def _cast(value: np.ndarray[Any, Any], parameter: Any) -> np.ndarray[Any, Any]:
    """In numpy and to nearest, not by a kernel of the device, which may lack it."""
    return value.astype(numpy_dtype(parameter), copy=False)


def _pending(cell: Any) -> Iterator[Any]:
    if not hasattr(cell, "cells_and_names"):
        return
    for _, part in cell.cells_and_names():
        if _PENDING in part.__dict__:
            yield part


def write_parameters(
    path: Path,
    parameters: Mapping[str, Any],
    *,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    metadata: Mapping[str, str] | None = None,
    values: Values | None = None,
) -> None:
    """Write parameters one at a time, sorted by name; only one is in host memory.

    Args:
        path: the new file.
        parameters: `mindspore.Parameter` by the name it is to have in the file.
        dtype: of the weights in the file; None: as the parameters are.
        metadata: strings for the header besides `format`.
        values: what to write of each parameter; None: what it is now.
    """
    value = values or value_of
    tensors = {
        name: safetensors_files.TensorInfo(_file_dtype(p, dtype), tuple(p.shape))
        for name, p in sorted(parameters.items())
    }
    safetensors_files.write(
        path,
        tensors,
        lambda name: _as_file_dtype(value(parameters[name]), tensors[name].dtype),
        metadata={"format": "pt", **(metadata or {})},
    )


def value_of(parameter: Any) -> np.ndarray[Any, Any]:
    """The value of a parameter as a numpy array of its own dtype. May share the parameter's memory,
    and change with it."""
    array: np.ndarray[Any, Any] = parameter.asnumpy()
    return array.view(numpy_dtype(parameter)) if str(array.dtype) == "bfloat16" else array


def as_float32(tensor: Any) -> np.ndarray[Any, Any]:
    """The value of a parameter or tensor as a numpy array, float32 whatever it is kept in."""
    import mindspore as ms

    return tensor.astype(ms.float32).asnumpy()


def _file_dtype(parameter: Any, dtype: str | None) -> str:
    if dtype is not None:
        return _FILE_DTYPES[dtype]
    return {"Float32": "F32", "BFloat16": "BF16", "Float16": "F16"}[str(parameter.dtype)]


def _as_file_dtype(value: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    return value.astype(safetensors_files.numpy_dtype(dtype), copy=False)
