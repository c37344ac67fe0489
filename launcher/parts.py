"""The parts of a model, made ready for a stage of the run."""

from __future__ import annotations

from typing import Any

from hooks.types import Config, Models, Stage
from launcher.training.errors import UserError


def prepare_models(config: Config, hook: Any, stage: Stage) -> Models:
    """Build, freeze and cast the parts of a stage. Their values are to be read afterwards, with
    `launcher.training.weights.load`."""
    from launcher.training.freeze import freeze

    models: Models = hook.build_models(config=config, stage=stage)
    if stage == "train":
        models = hook.configure_trainable(config=config, models=models)
    else:
        freeze(models.cells().values())
    models = hook.apply_precision(config=config, models=models)
    return models


def trainable_parameters(models: Models) -> list[Any]:
    """What is trained.

    Raises:
        UserError: nothing is.
    """
    parameters = models.trainable_parameters()
    if not parameters:
        raise UserError(
            "no parameter is trainable: configure_trainable left requires_grad False everywhere. "
            "Unfreeze the part that is to be trained."
        )
    return parameters
