"""Fine-tune FLUX.1 with LoRA adapters, on a subject (DreamBooth) or on captioned images.

launcher --recipe flux_lora_dreambooth --config my_run.yaml
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hooks import hookimpl, types
from hooks.types import Cache, CollateFn, Config, Models, Stage


@hookimpl
def config_sections() -> dict[str, type]:
    from flux_lora_plugin.config import SECTIONS

    return SECTIONS


@hookimpl
def check_config(config: Config) -> list[str]:
    from flux_common import class_images
    from flux_lora_plugin import models

    data, loss = config.data, config.loss
    problems = models.problems(config.model)
    if data.class_images is not None:
        problems += class_images.problems(**data.class_images)
    elif loss.prior_loss_weight != type(loss).prior_loss_weight:
        problems.append(
            f"loss.prior_loss_weight is {loss.prior_loss_weight}, which is used only with "
            f"data.with_prior_preservation=true."
        )
    return problems


@hookimpl
def build_dataset(config: Config) -> Any:
    from flux_lora_plugin.data import build_dreambooth_dataset

    data = config.data
    return build_dreambooth_dataset(
        source=data.source,
        sizes=data.sizes,
        instance_data_dir=data.instance_data_dir,
        instance_prompt=data.instance_prompt,
        image_column=data.image_column,
        caption_column=data.caption_column,
        class_images=data.class_images,
    )


@hookimpl
def inspect_data(config: Config, inspection: types.Inspection) -> Any:
    from flux_common import data_report

    data, classes = config.data, config.data.class_images
    part = data_report.instance_part(
        data.source,
        data.instance_data_dir,
        data.instance_prompt,
        data.image_column,
        data.caption_column,
        title="" if classes is None else "images of the subject",
    )
    return data_report.inspect(
        [part, *([] if classes is None else [data_report.class_part(**classes)])],
        **data_report.arguments(config, inspection),
        with_empty_prompt=config.loss.proportion_empty_prompts > 0,
        with_clip=not config.model.train_text_encoder,
    )


@hookimpl
def prepare_data(config: Config, dataset: Any, say: Callable[[str], None]) -> Any:
    from flux_common import class_images
    from flux_common.sampling import load_pipeline
    from launcher.training.precision import dtype_of

    data, model = config.data, config.model
    if not data.with_prior_preservation:
        return dataset
    class_images.make(
        class_images.missing_files(data.class_data_dir, data.num_class_images),
        lambda: load_pipeline(
            model.pretrained_model_name_or_path,
            revision=model.revision,
            variant=model.variant,
            dtype=dtype_of(config.precision.mixed_precision),
        ),
        class_prompt=data.class_prompt,
        seed=config.train.seed,
        size=data.sizes[0],
        sample_batch_size=data.sample_batch_size,
        num_inference_steps=data.num_inference_steps,
        max_sequence_length=data.max_sequence_length,
        say=say,
    )
    return dataset


@hookimpl
def build_models(config: Config, stage: Stage) -> Models:
    from flux_common.loading import deferred
    from flux_lora_plugin import models

    with deferred():
        if stage == "precompute":
            return Models(models.build_encoders(config.model))
        return Models(models.build_networks(config.model, config.train.seed))


@hookimpl
def configure_trainable(models: Models) -> Models:
    from flux_lora_plugin import adapters
    from launcher.training.freeze import set_trainable

    for cell in models.cells().values():
        set_trainable(cell, False)
        for parameter in adapters.parameters(cell).values():
            parameter.requires_grad = True
    return models


@hookimpl
def apply_precision(config: Config, models: Models) -> Models:
    from flux_lora_plugin import adapters
    from launcher.training.precision import Policy, cast_frozen, cast_trained

    p = config.precision
    policy = Policy.of(p.mixed_precision, p.text_encoders, p.trainable_params, p.attention)
    for name, cell in models.cells().items():
        half = policy.text_encoders if name.startswith("text_encoder") else policy.half
        cast_frozen(cell, half, attention=policy.attention if name == "transformer" else None)
        for layer in adapters.layers(cell):
            cast_trained(layer, policy.trained, half)
    return models


@hookimpl
def plan_encodings(config: Config, models: Models, networks: Models, dataset: Any) -> Any:
    from flux_common.encodings import plan
    from flux_lora_plugin.encode import captions_of, images_of

    texts, images = partial(captions_of, dataset), partial(images_of, dataset)
    return plan(config, models, networks, texts, images)


@hookimpl
def precompute(models: Models, encodings: Any, cache: Cache) -> Cache:
    from flux_common.encode import encode

    return encode(models, encodings, cache)


@hookimpl
def estimate_memory(config: Config, models: Models, networks: Models, samples: Any) -> Any:
    from flux_common import activations
    from flux_lora_plugin.encode import captions_of

    rows = 2 if config.data.with_prior_preservation else 1
    counts: dict[str, Any] = dict(captions=None, images=None)
    if samples is not None:
        empty = config.loss.proportion_empty_prompts > 0
        counts["captions"] = len(set(captions_of(samples, empty)))
        counts["images"] = sum(map(len, samples.tables.values()))
    per_sample = dict(images_per_sample=rows, rows_per_sample=rows)
    return types.MemoryEstimate(
        **activations.estimate(config, models, networks, **per_sample, **counts)
    )


@hookimpl
def build_collate_fn(
    config: Config, models: Models, dataset: Any, encodings: Any, cache: Cache
) -> CollateFn:
    from flux_common.collate import Encoded
    from flux_lora_plugin.collate import LoraCollate

    loss, prior = config.loss, config.data.with_prior_preservation
    return LoraCollate(
        Encoded(cache, encodings),
        dataset,
        models["scheduler"],
        **loss.density,
        proportion_empty_prompts=loss.proportion_empty_prompts,
        prior_loss_weight=loss.prior_loss_weight if prior else None,
    )


@hookimpl
def build_loss(config: Config, models: Models) -> Any:
    from flux_common.config import network_inputs
    from flux_lora_plugin.loss import FluxLoraLoss

    inputs = network_inputs(config.data, config.loss)
    return FluxLoraLoss(models["transformer"], models.get("text_encoder"), **inputs)


@hookimpl
def export_weights(config: Config, models: Models, directory: Path, values: Any) -> list[Path]:
    from flux_lora_plugin.adapters import export_adapters

    dtype = config.checkpoint.save_weight_dtype
    return [export_adapters(models.cells(), directory, dtype=dtype, values=values)]


@hookimpl
def describe_model(config: Config, model_id: str) -> types.ModelDescription:
    from flux_lora_plugin.card import describe

    return types.ModelDescription(**describe(config, model_id))
