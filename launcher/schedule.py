"""What happens at which step: the samples, their draws, and the learning rate.

All of it is a function of the step's number, so that a run can be taken up at any step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hooks.types import Batch, CollateFn, Dist
from launcher.training import schedule
from launcher.training.errors import UserError
from launcher.training.random import StepDraws
from launcher.training.sampler import Sampler

if TYPE_CHECKING:
    import numpy as np


class Schedule:
    """The steps of a run.

    Args:
        section: the configuration's `train` section.
        dataset_size: number of samples.
        dist: this process among all.
        groups: small whole numbers `[dataset_size]`: samples of one group go into batches
            together, because they are of one shape; None: all are.

    Attributes:
        total_steps: optimisation steps in the run.
        global_batch: samples per step, over all processes.
        shapes: groups that the run has batches of: at most as many graphs are compiled.
        unseen: samples that the run ends too early for.

    Raises:
        UserError: the learning-rate schedule does not fit into the run.
    """

    def __init__(
        self, section: Any, dataset_size: int, dist: Dist, groups: np.ndarray | None = None
    ) -> None:
        self._seed = section.seed
        self._sampler = Sampler(
            dataset_size,
            section.train_batch_size,
            section.gradient_accumulation_steps,
            section.seed,
            dist.rank,
            dist.world_size,
            groups,
        )
        self.global_batch = self._sampler.global_batch
        self.total_steps = section.max_train_steps or self._sampler.steps_for(
            section.num_train_epochs
        )
        self.shapes = sum(map(bool, self._sampler.taken(self.total_steps).values()))
        self.unseen = self._sampler.unseen(self.total_steps)
        self._rate: dict[str, Any] = dict(
            schedule=section.lr_scheduler,
            base=section.learning_rate,
            total_steps=self.total_steps,
            warmup_steps=section.lr_warmup_steps,
            step_rules=section.lr_step_rules,
        )
        problems = schedule.problems(**self._rate)
        if problems:
            raise UserError(
                f"train.lr_scheduler is {section.lr_scheduler}, and {'; '.join(problems)}."
            )
        self._rate.update(num_cycles=section.lr_num_cycles, power=section.lr_power)

    def learning_rate(self, step: int) -> float:
        """The rate of the step about to run; `step` steps are done."""
        return schedule.learning_rate(step, **self._rate)

    def batch(self, step: int, collate: CollateFn) -> Batch:
        """This process's share of a step's global batch."""
        micro_batches = [
            collate(
                self._sampler.indices(step, number),
                StepDraws(self._seed, step, self._sampler.slots(number)),
            )
            for number in range(self._sampler.accumulation_steps)
        ]
        return Batch(micro_batches, self.global_batch, self._sampler.epoch(step))
