"""Stop a run whose loss is not a number, at that step instead of at the end.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/nan_guard.py

A wrapper: it sees the answer of whoever owns `train_step`. With any recipe.
"""

import math

from hooks import hookimpl
from launcher.training.errors import UserError


@hookimpl(wrapper=True)
def train_step(state):
    output = yield
    # fp16 skips an update whose gradients overflow and goes on; that is not the end of a run.
    if not math.isfinite(output.loss) and not output.skipped:
        raise UserError(
            f"the loss of step {state.step + 1} is {output.loss}; the weights cannot be saved from "
            f"it. Lower train.learning_rate (now {state.config.train.learning_rate}) or "
            f"train.max_grad_norm, or compute in a wider dtype (precision.mixed_precision)."
        )
    return output
