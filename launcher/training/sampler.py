"""Which samples make up the batch of a step: a function of (seed, step), without state.

The epochs' permutations follow each other in one endless sequence, and step `t` takes the next
`global_batch` samples of it. Every sample is seen exactly once per epoch, batches are always
full (one shape, hence one compiled graph), and a resumed run needs to know nothing but the
number of its step.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from launcher.training.random import generator

if TYPE_CHECKING:
    import numpy as np


class Sampler:
    """Sample numbers by step.

    Args:
        dataset_size: number of samples, at least 1.
        batch_size: samples of one micro-batch in one process.
        accumulation_steps: micro-batches per optimisation step.
        seed: seed of the shuffling.
        rank, world_size: this process among all.
    """

    def __init__(
        self,
        dataset_size: int,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset_size = dataset_size
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.global_batch = batch_size * accumulation_steps * world_size

    def epoch(self, step: int) -> int:
        """The epoch that the first sample of a step belongs to, from 0."""
        return step * self.global_batch // self.dataset_size

    def steps_for(self, epochs: int) -> int:
        """Steps until every sample has been seen `epochs` times."""
        return math.ceil(epochs * self.dataset_size / self.global_batch)

    def slots(self, micro_batch: int) -> list[int]:
        """Positions in the global batch that are this process's share of a micro-batch."""
        start = (micro_batch * self.world_size + self.rank) * self.batch_size
        return list(range(start, start + self.batch_size))

    def indices(self, step: int, micro_batch: int) -> list[int]:
        """Sample numbers of this process's share of a micro-batch."""
        first = step * self.global_batch
        return [self._sample(first + slot) for slot in self.slots(micro_batch)]

    def _sample(self, position: int) -> int:
        epoch, place = divmod(position, self.dataset_size)
        return int(_permutation(self.seed, epoch, self.dataset_size)[place])


@lru_cache(maxsize=2)  # a batch touches at most the end of one epoch and the start of the next
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return generator(seed, "shuffle", epoch).permutation(size)
