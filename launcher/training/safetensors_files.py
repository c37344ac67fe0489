"""Reading the headers of safetensors files, and writing such files tensor by tensor.

The format (https://github.com/huggingface/safetensors): eight bytes with the length of the
header, little-endian; the header, a JSON object from tensor name to dtype, shape and byte
offsets; the data. The header alone tells whether a file is whole and what is in it, so a check
of a 24 GB checkpoint reads a few kilobytes. Needs numpy only, and that only for writing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    import numpy as np

#: Bytes per element; F4 and the like, of less than a byte, are not used for FLUX weights.
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

#: The limit that the reference implementation sets on headers.
_MAX_HEADER_BYTES = 100_000_000

_AGAIN = "Copy or download it again."


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor. `dtype` is the format's name: F32, BF16, ..."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: str | os.PathLike[str]) -> dict[str, TensorInfo]:
    """Read the header of a safetensors file and check the file's length against it.

    Returns:
        dtype and shape by tensor name, in the file's order.

    Raises:
        UserError: not there, not a safetensors file, truncated, or damaged.
    """
    path = Path(path)
    header, start, size = _read_json(path)
    header.pop("__metadata__", None)
    damaged = f"{path} is damaged: %s {_AGAIN}"
    tensors = {}
    spans = []
    for name, entry in header.items():
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
            begin, end = (int(n) for n in entry["data_offsets"])
        except (TypeError, KeyError, ValueError):
            raise UserError(damaged % f"its header has no valid entry for {name!r}.") from None
        width = _BYTES.get(dtype)
        if end < begin or (width is not None and end - begin != width * math.prod(shape)):
            raise UserError(
                damaged % f"its header gives {name!r} (shape {list(shape)}, {dtype}) a span of "
                f"{end - begin} bytes, which does not fit."
            )
        tensors[name] = TensorInfo(dtype, shape)
        spans.append((begin, end))

    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise UserError(damaged % "the tensors in it overlap or leave gaps.")
        position = end
    expected = start + position
    if size < expected:
        raise UserError(
            f"{path} is truncated: its header describes {expected} bytes, but the file has {size}. "
            f"The download or copy was probably cut short. {_AGAIN}"
        )
    if size > expected:
        raise UserError(
            damaged % f"its header describes {expected} bytes, but the file has {size}."
        )
    return tensors


def read_tensors(
    path: str | os.PathLike[str], names: Collection[str]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Read some of a file's tensors, one at a time, in the order of the file.

    Read, not mapped: the pages of a map stay in the process's memory beside what is made of them.

    Args:
        path: a file that `read_header` has found to be whole.
        names: which tensors; those that the file does not hold are left out.

    Yields:
        Name and array, in its own dtype (`ml_dtypes` has those that numpy lacks).

    Raises:
        UserError: as `read_header`, or the file can no longer be read.
    """
    import numpy as np

    path = Path(path)
    header, start, _ = _read_json(path)
    entries = {name: header[name] for name in header if name in names}
    try:
        with path.open("rb", buffering=0) as file:
            for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
                array = np.empty(entry["shape"], numpy_dtype(entry["dtype"]))
                rest = array.reshape(-1).view(np.uint8).data
                file.seek(start + entry["data_offsets"][0])
                while rest and (count := file.readinto(rest)):
                    rest = rest[count:]
                if rest:
                    raise UserError(f"{path} became shorter while it was read. {_AGAIN}")
                yield name, array
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of one of the format's names.

    Raises:
        UserError: there is none.
    """
    import ml_dtypes
    import numpy as np

    kinds = {"F": "f", "I": "i", "U": "u"}
    others = {
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "BOOL": np.bool_,
    }
    if name in others:
        return np.dtype(others[name])
    if name in _BYTES:
        return np.dtype(f"<{kinds[name[0]]}{_BYTES[name]}")
    raise UserError(f"tensors of dtype {name} cannot be read; convert the file to BF16 or F32.")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The strings in the header that are no tensors, such as `{"format": "pt"}`.

    Raises:
        UserError: as `read_header`.
    """
    metadata = _read_json(Path(path))[0].get("__metadata__")
    return dict(metadata) if isinstance(metadata, dict) else {}


def _read_json(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header as it stands, where the data begin, and the file's size, in bytes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if start == b"version ":
                raise UserError(
                    f"{path} is a Git LFS pointer of {size} bytes, not the weights themselves. "
                    f"Run `git lfs pull` in that repository, or download the file."
                )
            if len(start) < 8:
                raise UserError(
                    f"{path} holds {size} bytes, too few for a safetensors file; the download or "
                    f"copy was probably cut short. {_AGAIN}"
                )
            length = int.from_bytes(start, "little")
            if length > _MAX_HEADER_BYTES:
                raise UserError(
                    f"{path} is not a safetensors file, or is damaged: its first bytes do not "
                    f"give a valid length for the header. {_AGAIN}"
                )
            if 8 + length > size:
                raise UserError(
                    f"{path} is truncated: its header alone should be {length} bytes long, but "
                    f"the whole file has {size}. {_AGAIN}"
                )
            raw = file.read(length)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None

    try:
        return dict(json.loads(raw)), 8 + length, size
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: its header is not a JSON object. {_AGAIN}") from None


#: Bytes. A large file is brought to the disk bit by bit, not all of it when it is complete.
_SYNCED_EVERY = 16 << 20


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, TensorInfo],
    data_of: Callable[[str], np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file one tensor at a time, so that only one is in host memory.

    The file is written in place and synced to disk; see `atomic.folder` for a whole or nothing.

    Args:
        path: the new file.
        tensors: dtype and shape by name; the order is the file's order.
        data_of: returns the array for a name, of exactly that shape and element size.
        metadata: strings for the header, such as `{"format": "pt"}`.
    """
    with open(path, "wb") as file:
        file.write(header_bytes(tensors, metadata))
        unsynced = 0
        for name, info in tensors.items():
            array = data_of(name)
            assert array.shape == info.shape, (name, array.shape, info)
            assert array.dtype.itemsize == _BYTES[info.dtype], (name, array.dtype, info)
            file.write(_raw(array))
            unsynced += array.nbytes
            if unsynced >= _SYNCED_EVERY:
                file.flush()
                os.fdatasync(file.fileno())
                unsynced = 0
        file.flush()
        os.fsync(file.fileno())


def _raw(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    """The bytes of an array, without a copy where they lie in order."""
    import numpy as np

    if not array.flags.c_contiguous or array.ndim == 0:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def header_bytes(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str] | None = None
) -> bytes:
    """What a file begins with, up to the data: the tensors follow one another in this order.

    Args:
        tensors: dtype and shape by name.
        metadata: strings for the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, info in tensors.items():
        end = position + _BYTES[info.dtype] * math.prod(info.shape)
        header[name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [position, end],
        }
        position = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)  # the data starts at a multiple of eight, as the format asks
    return len(raw).to_bytes(8, "little") + raw
