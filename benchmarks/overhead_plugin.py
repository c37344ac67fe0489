"""The plugin behind `overhead.py`: times the loop's steps and, between them, bare ones.

After each step of the loop it calls a second compiled step, built like the launcher's, on
tensors that are ready, until the loss is on the host. Writes both times of every step to
`overhead.json` in the run's folder.
"""

from __future__ import annotations

import json
import time
from typing import Any

from hooks import hookimpl


class Timer:
    """Times of the loop and of the bare step, in milliseconds."""

    def __init__(self) -> None:
        self.arrays: Any = None
        self.bare_step: Any = None
        self.inputs: Any = None
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.loop_started = 0.0

    def prepare(self, state: Any) -> None:
        """Build the bare step around the same loss and optimizer and compile it."""
        from mindspore import Tensor, float32

        from launcher.training.step import TrainStep

        step = TrainStep(
            state.loss, state.optimizer, max_grad_norm=state.config.train.max_grad_norm
        )
        # The cell inside, since `step` itself takes arrays and makes tensors of them.
        self.bare_step = step._step
        # At a rate of zero the bare steps leave the weights alone (not Adam's moments).
        self.inputs = [Tensor(0.0, float32), *map(Tensor, self.arrays)]
        float(self.bare_step(*self.inputs)[0])

    def time_bare_step(self) -> None:
        start = time.perf_counter()
        loss, _, _ = self.bare_step(*self.inputs)
        float(loss)
        self.bare.append((time.perf_counter() - start) * 1e3)


timer = Timer()


@hookimpl(wrapper=True)
def train_step(batch):
    if timer.arrays is None:
        timer.arrays = batch.micro_batches[0]
    return (yield)


@hookimpl
def on_step_end(state):
    now = time.perf_counter()
    if timer.bare_step is None:  # the first step compiled
        timer.prepare(state)
    else:
        timer.loop.append((now - timer.loop_started) * 1e3)
        timer.time_bare_step()
    timer.loop_started = time.perf_counter()


@hookimpl
def on_train_end(state):
    times = {"loop_ms": timer.loop, "bare_ms": timer.bare}
    (state.output_dir / "overhead.json").write_text(json.dumps(times))
