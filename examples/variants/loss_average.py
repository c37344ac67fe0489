"""The loss as a moving average, for it differs from step to step with the noise level drawn.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/loss_average.py

A wrapper: it sees the answer of whoever owns `train_step`. With any recipe. In `metrics.jsonl` and
wherever figures of a step are shown: `loss_average`. It begins anew when a run is continued.
"""

import math
from dataclasses import replace

from hooks import hookimpl

DECAY = 0.9


class Average:
    """Exponential moving average, with the correction for its start at zero of Adam's moments."""

    def __init__(self):
        self.sum = self.weight = 0.0

    def add(self, value):
        self.sum = DECAY * self.sum + (1 - DECAY) * value
        self.weight = DECAY * self.weight + (1 - DECAY)
        return self.sum / self.weight


average = Average()


@hookimpl(wrapper=True)
def train_step(state):
    output = yield
    if not math.isfinite(output.loss):
        return output
    return replace(output, metrics={**output.metrics, "loss_average": average.add(output.loss)})
