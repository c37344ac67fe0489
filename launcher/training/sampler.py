"""Which samples make up the batch of a step: a function of (seed, step), without state.

Every sample belongs to a group (one, or one per image size), and every micro-batch is of one
group, the same on all processes. The passes over a group, each a permutation of its samples,
follow each other in one endless sequence, and a micro-batch takes the next samples of it. Every
sample is seen exactly once per pass, batches are always full (one shape per group, hence one
compiled graph), and a resumed run needs to know nothing but the number of its step.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, TypeVar

from launcher.training.random import generator

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class Sampler:
    """Sample numbers by step.

    After `e` epochs, `ceil(e * n / m)` micro-batches have been taken of a group of `n` samples,
    where `m` is the samples of a micro-batch over all processes: all its samples have been seen
    `e` times. The order of the groups within an epoch is drawn. A group smaller than a micro-batch
    fills it with several passes, and then has none in the epochs until that is made up for.

    What a step consists of depends on `batch_size * world_size` and `accumulation_steps`; with one
    group, on their product only. A sampler keeps what it computed last, so it is to be asked by
    one thread at a time.

    Args:
        dataset_size: number of samples, at least 1.
        batch_size: samples of one micro-batch in one process.
        accumulation_steps: micro-batches per optimisation step.
        seed: seed of the shuffling.
        rank, world_size: this process among all.
        groups: small whole numbers `[dataset_size]`, each sample's group; None: all are of one.
    """

    def __init__(
        self,
        dataset_size: int,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        groups: np.ndarray | None = None,
    ) -> None:
        import numpy as np

        if groups is None:
            groups = np.zeros(dataset_size, np.uint8)
        if groups.shape != (dataset_size,):
            raise ValueError(f"groups of shape {groups.shape} for {dataset_size} samples")
        self.dataset_size = dataset_size
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.global_batch = batch_size * accumulation_steps * world_size
        self._together = batch_size * world_size  # samples of one micro-batch, over all processes
        # By group, in the order of their numbers: uint32, a quarter of a list's size.
        self._members = {
            int(group): np.flatnonzero(groups == group).astype(np.uint32)
            for group in np.unique(groups)
        }
        # What has been computed for at most two epochs: a batch touches the end of one and the
        # start of the next.
        self._passes: dict[int, dict[int, np.ndarray]] = {group: {} for group in self._members}
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def group_sizes(self) -> dict[int, int]:
        """Samples by group; groups without samples are not listed."""
        return {group: len(members) for group, members in self._members.items()}

    def epoch(self, step: int) -> int:
        """The epoch that the first micro-batch of a step belongs to, from 0."""
        return self._epoch(step * self.accumulation_steps)

    def steps_for(self, epochs: int) -> int:
        """Steps until every sample has been seen `epochs` times."""
        return -(-self._micro_batches(epochs) // self.accumulation_steps)

    def slots(self, micro_batch: int) -> list[int]:
        """Positions in the global batch that are this process's share of a micro-batch."""
        start = (micro_batch * self.world_size + self.rank) * self.batch_size
        return list(range(start, start + self.batch_size))

    def group(self, step: int, micro_batch: int) -> int:
        """The group that a micro-batch is of."""
        return self._place(step, micro_batch)[0]

    def indices(self, step: int, micro_batch: int) -> list[int]:
        """Sample numbers of this process's share of a micro-batch."""
        group, number = self._place(step, micro_batch)
        members = self._members[group]
        first = number * self._together + self.rank * self.batch_size
        samples = []
        for position in range(first, first + self.batch_size):
            run, place = divmod(position, len(members))
            samples.append(int(members[self._permutation(group, run)[place]]))
        return samples

    def taken(self, steps: int) -> dict[int, int]:
        """Micro-batches of each group in the first `steps` steps."""
        import numpy as np

        total = steps * self.accumulation_steps
        epoch = self._epoch(total)
        order, _ = self._order(epoch)
        begun = order[: total - self._micro_batches(epoch)]
        return {
            group: self._of_group(group, epoch) + int(np.count_nonzero(begun == group))
            for group in self._members
        }

    def unseen(self, steps: int) -> int:
        """Samples that do not occur in the first `steps` steps."""
        taken = self.taken(steps)
        sizes = self.group_sizes
        return sum(max(0, size - taken[g] * self._together) for g, size in sizes.items())

    def _of_group(self, group: int, epochs: int) -> int:
        """Micro-batches of a group in the first epochs."""
        return -(-epochs * len(self._members[group]) // self._together)

    def _micro_batches(self, epochs: int) -> int:
        """Micro-batches in the first epochs."""
        return sum(self._of_group(group, epochs) for group in self._members)

    def _epoch(self, number: int) -> int:
        """The epoch of a micro-batch, counted from the beginning of the run."""
        # Rounding up adds less than one micro-batch per group to what the epochs hold.
        earliest = (number - len(self._members)) * self._together // self.dataset_size
        latest = number * self._together // self.dataset_size
        epochs = range(max(0, earliest), latest + 1)
        return epochs[bisect_right(epochs, number, key=self._micro_batches) - 1]

    def _place(self, step: int, micro_batch: int) -> tuple[int, int]:
        """A micro-batch's group, and its number among the micro-batches of this group."""
        number = step * self.accumulation_steps + micro_batch
        epoch = self._epoch(number)
        order, occurrences = self._order(epoch)
        place = number - self._micro_batches(epoch)
        group = int(order[place])
        return group, self._of_group(group, epoch) + int(occurrences[place])

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The groups of an epoch's micro-batches, and how often each occurred before."""
        import numpy as np

        if epoch not in self._orders:
            counts = {
                group: self._of_group(group, epoch + 1) - self._of_group(group, epoch)
                for group in self._members
            }
            order = np.repeat(np.array(list(counts), np.uint32), list(counts.values()))
            generator(self.seed, "bucket order", epoch).shuffle(order)
            occurrences = np.empty(len(order), np.uint32)
            for group, count in counts.items():
                occurrences[order == group] = np.arange(count)
            _keep(self._orders, epoch, (order, occurrences))
        return self._orders[epoch]

    def _permutation(self, group: int, run: int) -> np.ndarray:
        """uint32: the order of a pass over a group."""
        import numpy as np

        passes = self._passes[group]
        if run not in passes:
            size = len(self._members[group])
            # Of group 0 the numbers are those of a data set without groups: a counter that is
            # missing counts as 0.
            shuffled = generator(self.seed, "shuffle", run, group).permutation(size)
            _keep(passes, run, shuffled.astype(np.uint32))
        return passes[run]


def _keep(kept: dict[int, T], key: int, value: T) -> None:
    """Add what was computed; of what was there, only the latest stays."""
    while len(kept) > 1:
        del kept[next(iter(kept))]
    kept[key] = value
