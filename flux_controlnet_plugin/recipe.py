"""Fine-tune a FLUX.1 ControlNet.

launcher --recipe flux_controlnet --config my_run.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hooks import hookimpl, types
from hooks.types import Cache, CollateFn, Config, Dataset, Dist, Models, Stage
from launcher.training.errors import refuse


@hookimpl
def config_sections() -> dict[str, type]:
    from flux_controlnet_plugin.config import SECTIONS

    return SECTIONS


@hookimpl
def check_config(config: Config) -> list[str]:
    from flux_controlnet_plugin import validation as validation_images
    from flux_controlnet_plugin.models import problems

    found = list(problems(config.model))
    wanted = validation_images.is_wanted(config)
    if wanted and not config.validation.heldout_samples and not config.images.is_wanted:
        found.append(
            "there are to be validations, but validation.heldout_samples is 0 and there is no "
            "images.validation_prompt, so that there is nothing to look at. Hold out some samples, "
            "16 for instance."
        )
    return found + validation_images.problems(config)


@hookimpl
def build_dataset(config: Config, dist: Dist) -> Dataset:
    from flux_controlnet_plugin.data import build_controlnet_dataset

    data = config.data
    return build_controlnet_dataset(
        **data.source,
        image_column=data.image_column,
        conditioning_image_column=data.conditioning_image_column,
        conditioning=data.conditioning,
        caption_column=data.caption_column,
        sizes=data.sizes,
    )


@hookimpl
def inspect_data(config: Config, inspection: types.Inspection) -> Any:
    from flux_common import data_report

    data = config.data
    images = [data.image_column]
    if data.conditioning_image_column is not None:
        images.append(data.conditioning_image_column)
    made = 0 if data.conditioning is None else 1
    part = data_report.open_part(data.source, images, data.caption_column, made=made)
    return data_report.inspect(
        [part],
        **data_report.arguments(config, inspection),
        with_empty_prompt=config.loss.proportion_empty_prompts > 0,
    )


@hookimpl
def build_models(config: Config, stage: Stage) -> Models:
    from flux_common.loading import deferred
    from flux_controlnet_plugin import models

    build = models.build_encoders if stage == "precompute" else models.build_networks
    with deferred():
        return Models(build(config.model))


@hookimpl
def configure_trainable(models: Models) -> Models:
    from launcher.training.freeze import set_trainable

    for name, cell in models.cells().items():
        set_trainable(cell, name == "controlnet")
    return models


@hookimpl
def apply_precision(config: Config, models: Models) -> Models:
    from launcher.training.precision import Policy, cast_frozen, cast_trained

    p = config.precision
    policy = Policy.of(p.mixed_precision, p.text_encoders, p.trainable_params, p.attention)
    for name, cell in models.cells().items():
        if name == "controlnet":
            cast_trained(cell, policy.trained, policy.half, attention=policy.attention)
        elif name == "transformer":
            cast_frozen(cell, policy.half, attention=policy.attention)
        elif name == "vae":
            cast_frozen(cell, policy.half)
        else:
            cast_frozen(cell, policy.text_encoders)
    return models


@hookimpl
def plan_encodings(config: Config, models: Models, networks: Models, dataset: Any) -> Any:
    from flux_common.encodings import all_captions, plan
    from flux_controlnet_plugin.encode import images_of
    from flux_controlnet_plugin.validation import validated_prompts

    captions, images = partial(all_captions, dataset), partial(images_of, dataset)
    return plan(config, models, networks, captions, images, validated_prompts(config))


@hookimpl
def precompute(models: Models, encodings: Any, cache: Cache) -> Cache:
    from flux_common.encode import encode

    return encode(models, encodings, cache)


@hookimpl
def estimate_memory(
    config: Config, models: Models, networks: Models, samples: Any
) -> types.MemoryEstimate:
    from flux_common.activations import estimate
    from flux_common.encodings import all_captions

    captions, images = None, None
    if samples is not None:
        with_empty_prompt = config.loss.proportion_empty_prompts > 0
        captions, images = len(set(all_captions(samples, with_empty_prompt))), 2 * len(samples)
    sizes = estimate(
        config, models, networks, images_per_sample=2, captions=captions, images=images
    )
    return types.MemoryEstimate(**sizes)


@hookimpl
def build_collate_fn(
    config: Config, models: Models, dataset: Any, encodings: Any, cache: Cache
) -> CollateFn:
    from flux_common.collate import Encoded
    from flux_controlnet_plugin.collate import ControlNetCollate

    loss = config.loss
    return ControlNetCollate(
        Encoded(cache, encodings),
        dataset.captions,
        models["scheduler"],
        proportion_empty_prompts=loss.proportion_empty_prompts,
        **loss.density,
    )


@hookimpl
def build_loss(config: Config, models: Models) -> Any:
    from flux_common.config import network_inputs
    from flux_common.controlnet_folder import training_problems
    from flux_controlnet_plugin.loss import FluxControlNetLoss

    controlnet = models.get("controlnet")
    if controlnet is not None:
        refuse(training_problems("that is to be trained", controlnet.config))
    inputs = network_inputs(config.data, config.loss)
    return FluxControlNetLoss(controlnet, models["transformer"], **inputs)


@hookimpl
def build_validation(
    config: Config,
    models: Models,
    dataset: Any,
    encodings: Any,
    cache: Cache,
    heldout: Sequence[int],
) -> Any:
    from flux_common.collate import Encoded
    from flux_controlnet_plugin import validation
    from flux_controlnet_plugin.figures import held_out

    encoded = Encoded(cache, encodings)
    return validation.Prepared(
        held_out(config, models, dataset, encoded, heldout) if heldout else None,
        validation.images_of_run(config, models, dataset, encoded, heldout),
    )


@hookimpl
def validate(prepared: Any, state: types.TrainState) -> types.Validation:
    return types.Validation(**prepared.look(state.step))


@hookimpl
def export_weights(config: Config, models: Models, directory: Path, values: Any) -> list[Path]:
    from flux_controlnet_plugin.controlnet import export_controlnet

    dtype = config.checkpoint.save_weight_dtype
    return export_controlnet(models["controlnet"], directory, dtype=dtype, values=values)


@hookimpl
def describe_model(config: Config, model_id: str) -> types.ModelDescription:
    from flux_controlnet_plugin.card import describe

    return types.ModelDescription(**describe(config, model_id))


@hookimpl
def sample(config: Config, request: types.SampleRequest) -> Any:
    from flux_controlnet_plugin.sample import sample as make

    return make(config, request)
