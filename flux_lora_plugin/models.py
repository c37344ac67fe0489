"""The parts of a LoRA run, loaded for the stage that needs them."""

from __future__ import annotations

from typing import Any

from flux_common import loading, lora_file, pipeline_folder
from flux_common.adapter_targets import target_problems
from flux_lora_plugin import adapters
from flux_lora_plugin.config import LoraModelSection


def build_encoders(section: LoraModelSection) -> dict[str, Any]:
    """What encodes the data set. CLIP is left out where it is trained: it runs in the step."""
    return loading.load_encoders(
        section.pretrained_model_name_or_path,
        with_clip=not section.train_text_encoder,
        **_version(section),
    )


def build_networks(section: LoraModelSection, seed: int) -> dict[str, Any]:
    """What the training step holds: the transformer, perhaps CLIP, both with adapters; and the
    noise scheduler."""
    from launcher.training.recompute import checkpoint_blocks

    path, version = section.pretrained_model_name_or_path, _version(section)
    targets = {"transformer": section.targets}
    transformer = loading.load_transformer(path, **version)
    parts = {"transformer": transformer}
    if section.train_text_encoder:
        targets["text_encoder"] = list(adapters.CLIP_TARGETS)
        parts["text_encoder"] = loading.load_text_encoder(path, **version)
    if section.lora_weights is not None:
        for part, lora in lora_file.read(section.lora_weights).items():
            adapters.load_adapters(parts[part], lora, path)
    else:
        sizes = dict(rank=section.rank, lora_alpha=section.lora_alpha or section.rank, seed=seed)
        for part, names in targets.items():
            adapters.add_adapters(parts[part], names, **sizes)
    if section.gradient_checkpointing:
        checkpoint_blocks(transformer.transformer_blocks)
        checkpoint_blocks(transformer.single_transformer_blocks)
        if section.train_text_encoder:
            checkpoint_blocks(parts["text_encoder"].text_model.encoder.layers)
    return parts | {"scheduler": loading.load_scheduler(path, revision=section.revision)}


def problems(section: LoraModelSection) -> list[str]:
    """What would keep the parts from being loaded, seen without loading them."""
    path = section.pretrained_model_name_or_path
    problems = pipeline_folder.problems(path, **_version(section))
    if section.lora_weights is None:
        return problems + target_problems(path, section.targets, section.variant)
    trained = ["transformer", *(["text_encoder"] if section.train_text_encoder else [])]
    return problems + lora_file.problems(
        section.lora_weights, path, section.variant, trained=trained, **section.asked
    )


def _version(section: LoraModelSection) -> dict[str, str | None]:
    return {"revision": section.revision, "variant": section.variant}
