"""Stop a run whose loss jumps: ten times the median of the steps before.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/spike_guard.py

A wrapper: it sees the answer of whoever owns `train_step`. With any recipe. The steps before the
one that jumped are in the checkpoints; a loss that is not a number is looked after by the launcher.
"""

from collections import deque
from statistics import median

from hooks import hookimpl
from launcher.training.errors import UserError

FACTOR = 10
losses: deque[float] = deque(maxlen=50)


@hookimpl
def on_train_start(state):
    losses.clear()


@hookimpl(wrapper=True)
def train_step(state):
    output = yield
    if losses and output.loss > FACTOR * median(losses):
        raise UserError(
            f"the loss of step {state.step + 1} is {output.loss:.4g}, and {median(losses):.4g} is "
            f"the median of the {len(losses)} steps before. Lower train.learning_rate (now "
            f"{state.config.train.learning_rate:g}) and go on from the last checkpoint."
        )
    losses.append(output.loss)
    return output
