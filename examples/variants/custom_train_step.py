"""Update twice on every batch, and report what the first update did to the loss of that batch.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/custom_train_step.py

`loss_after` in metrics.jsonl is the loss of the same samples with the same noise after the first
update. Above `loss` again and again, it says that the learning rate is too high. With any recipe.
"""

from dataclasses import replace

from hooks import hookimpl


@hookimpl
def train_step(state, batch):
    first = state.compiled_step(batch, state.learning_rate)
    second = state.compiled_step(batch, state.learning_rate)
    return replace(
        first,
        skipped=first.skipped or second.skipped,
        metrics={**first.metrics, "loss_after": second.loss},
    )
