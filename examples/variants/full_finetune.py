"""Train the transformer itself, on the same data, instead of a ControlNet.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/full_finetune.py

Writes `transformer/`, which takes the place of the base model's folder of that name:
`FluxTransformer2DModel.from_pretrained("runs/first/transformer")` in diffusers.
"""

from flux_common.export import export_model
from flux_common.transformer_card import describe
from hooks import hookimpl
from hooks.types import ModelDescription
from launcher import defaults
from launcher.training.freeze import set_trainable


@hookimpl
def configure_trainable(models):
    del models["controlnet"]  # the loss then runs the transformer by itself
    set_trainable(models["transformer"], True)
    return models


@hookimpl
def apply_precision(config, models):
    return defaults.apply_precision(config, models)  # the recipe's expects a ControlNet


@hookimpl
def export_weights(config, models, directory, values):
    dtype = config.checkpoint.save_weight_dtype
    folder = directory / "transformer"
    return export_model(models["transformer"], folder, dtype=dtype, values=values)


@hookimpl
def describe_model(config, model_id):  # the recipe's tells of a ControlNet
    return ModelDescription(**describe(config, model_id))
