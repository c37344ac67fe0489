"""The parts of a FLUX.1 ControlNet run, loaded for the stage that needs them."""

from __future__ import annotations

from typing import Any

from flux_common import loading, pipeline_folder
from flux_common.controlnet_folder import controlnet_problems
from flux_controlnet_plugin.config import ControlNetModelSection


def build_encoders(section: ControlNetModelSection) -> dict[str, Any]:
    """What encodes the data set: tokenizers, text encoders, VAE."""
    return loading.load_encoders(
        section.pretrained_model_name_or_path, revision=section.revision, variant=section.variant
    )


def build_networks(section: ControlNetModelSection) -> dict[str, Any]:
    """What the training step holds: transformer, ControlNet; and the noise scheduler."""
    from flux_controlnet_plugin import controlnet as controlnets
    from launcher.training.recompute import checkpoint_blocks

    path = section.pretrained_model_name_or_path
    transformer = loading.load_transformer(path, revision=section.revision, variant=section.variant)
    if section.controlnet_model_name_or_path is not None:
        controlnet = controlnets.load_controlnet(
            section.controlnet_model_name_or_path, transformer_config=transformer.config
        )
    else:
        controlnet = controlnets.controlnet_from_transformer(
            transformer, section.num_double_layers, section.num_single_layers
        )
    if section.gradient_checkpointing:
        # The frozen transformer too: gradients pass through it to the ControlNet.
        for model in (transformer, controlnet):
            checkpoint_blocks(model.transformer_blocks)
            checkpoint_blocks(model.single_transformer_blocks)
    scheduler = loading.load_scheduler(path, revision=section.revision)
    return {"transformer": transformer, "controlnet": controlnet, "scheduler": scheduler}


def problems(section: ControlNetModelSection, *, is_trained: bool = True) -> list[str]:
    """What would keep the parts from being loaded, seen without loading them.

    Args:
        is_trained: False: images are made with them.
    """
    layers = {name: getattr(section, name) for name in ("num_double_layers", "num_single_layers")}
    if section.controlnet_model_name_or_path is not None:
        # It brings its own: only what was asked for in so many words can contradict it.
        layers = {n: None if v == getattr(type(section), n) else v for n, v in layers.items()}
    return [
        *pipeline_folder.problems(
            section.pretrained_model_name_or_path,
            revision=section.revision,
            variant=section.variant,
        ),
        *controlnet_problems(
            section.pretrained_model_name_or_path,
            section.controlnet_model_name_or_path,
            revision=section.revision,
            is_trained=is_trained,
            **layers,
        ),
    ]
