"""Random numbers as a function, not a state.

Every number of a training step is a function of (seed, step, slot, name), drawn on the host
with numpy's counter-based Philox generator. A resumed run therefore draws what the
uninterrupted one would have drawn, with no generator state to save; and N processes draw for
their share of the global batch what one process would draw for the whole of it.

A *slot* is a position in the global batch of one optimisation step, counted over processes and
gradient accumulation. The slot is used rather than the number of the sample, so that a sample
that occurs twice in a batch still gets two different noises.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def generator(seed: int, name: str, *counters: int) -> np.random.Generator:
    """A generator whose whole stream is a function of its arguments.

    Args:
        seed: any non-negative integer.
        name: what the numbers are for; each name is an independent stream.
        counters: at most three non-negative integers below 2**64, such as (step, slot).

    Philox4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) maps a
    256-bit counter and a 128-bit key to random bits. Seed and name make the key. The counters
    take the upper three words, which leaves 2**64 blocks of four numbers to each stream.
    """
    import numpy as np

    if len(counters) > 3:
        raise ValueError(f"at most three counters, got {counters}")
    key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
    counter = np.zeros(4, dtype=np.uint64)
    counter[1 : 1 + len(counters)] = counters
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class StepDraws:
    """The draws of one micro-batch: `slots` of the global batch of step `step`."""

    def __init__(self, seed: int, step: int, slots: Sequence[int]) -> None:
        self._seed = seed
        self._step = step
        self._slots = slots

    def uniform(self, name: str) -> np.ndarray:
        """float64 `[B]` in [0, 1), one number per slot."""
        import numpy as np

        return np.array([g.random() for g in self._generators(name)])

    def normal(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """float32 `[B, *shape]`, standard normal."""
        import numpy as np

        shape = tuple(shape)
        return np.stack(
            [g.standard_normal(shape, dtype=np.float32) for g in self._generators(name)]
        )

    def _generators(self, name: str) -> list[np.random.Generator]:
        return [generator(self._seed, name, self._step, slot) for slot in self._slots]
