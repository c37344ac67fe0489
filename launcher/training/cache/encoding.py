"""Batches from an encoder, checked before they are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import UserError

#: dtype and shape of one entry's array.
Spec = tuple[np.dtype[Any], tuple[int, ...]]


class Batches:
    """Calls an encoder with full batches only.

    Args:
        encode: takes `batch_size` positions, returns arrays `[batch_size, ...]` by name.
        describe: names the input at a position for the user.
        batch_size: always as many, so that one compiled graph does.

    Attributes:
        specs: dtype and shape of an entry's arrays by name; empty before the first batch.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[int]], Mapping[str, np.ndarray]],
        describe: Callable[[int], str],
        batch_size: int,
    ) -> None:
        self.specs: dict[str, Spec] = {}
        self._encode = encode
        self._describe = describe
        self._batch_size = batch_size

    def encode(self, positions: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Encode up to a batch.

        Returns:
            Arrays `[len(positions), ...]` by name, contiguous.

        Raises:
            UserError: NaN or infinity in one of them.
            ValueError: they are not what an encoder may return.
        """
        count = len(positions)
        assert 0 < count <= self._batch_size, count
        chosen = [int(p) for p in positions]
        encoded = self._encode(chosen + chosen[-1:] * (self._batch_size - count))
        arrays = {name: np.asarray(array) for name, array in encoded.items()}
        self._check_specs(arrays)
        rows = {name: np.ascontiguousarray(array[:count]) for name, array in arrays.items()}
        for name, array in rows.items():
            self._check_finite(name, array, chosen)
        return rows

    def _check_specs(self, arrays: Mapping[str, np.ndarray]) -> None:
        if not arrays:
            raise ValueError("the encoder returned no arrays")
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != self._batch_size:
                raise ValueError(
                    f"the encoder returned {name!r} of shape {list(array.shape)} for a batch of "
                    f"{self._batch_size}"
                )
        specs = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        if self.specs and specs != self.specs:
            raise ValueError(f"the encoder returned {specs} after {self.specs}")
        self.specs = specs

    def _check_finite(self, name: str, array: np.ndarray, positions: Sequence[int]) -> None:
        bad = [p for at, p in enumerate(positions) if not is_finite(array[at : at + 1])]
        if not bad:
            return
        more = f", and so are those of {len(bad) - 1} more in its batch" if len(bad) > 1 else ""
        raise UserError(
            f"the encoding of {self._describe(bad[0])} is of no use: NaN or infinity in "
            f"{name!r}{more}. It is not kept. Look at that input; if there is nothing wrong with "
            "it, the encoder overflows in its dtype: encode in bf16 or float32."
        )


#: From this magnitude on, the bits of a half-precision number mean infinity or NaN.
_INFINITY = {np.dtype(np.float16): 0x7C00, np.dtype(ml_dtypes.bfloat16): 0x7F80}


def is_finite(array: np.ndarray) -> bool:
    """Neither NaN nor infinity in it."""
    if array.dtype in _INFINITY:
        # np.isfinite takes 30 times as long: a batch of FLUX's embeddings 60 to 100 ms.
        magnitudes = array.view(np.uint16) & np.uint16(0x7FFF)
        return int(magnitudes.max(initial=0)) < _INFINITY[array.dtype]
    return array.dtype.kind in "iub" or bool(np.isfinite(array).all())
