"""Checking a ControlNet before it is loaded or made: its folder, and its fit to the transformer.

Reads configuration files and headers of weights, like `flux_common.pipeline_folder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flux_common import pipeline_folder
from flux_common.export import CONFIG_FILE
from launcher.training.errors import UserError

#: What a ControlNet and the transformer it steers must have in common: its outputs are added to
#: the transformer's hidden states, and both get the same inputs.
_SHARED = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "patch_size",
    "joint_attention_dim",
    "pooled_projection_dim",
    "guidance_embeds",
    "axes_dims_rope",
)

_OPTION = "model.controlnet_model_name_or_path"

#: The folder that `export_controlnet` makes.
EXPORT_FOLDER = "controlnet"


def controlnet_problems(
    pretrained_model_name_or_path: str,
    controlnet_model_name_or_path: str | None = None,
    *,
    num_double_layers: int | None,
    num_single_layers: int | None,
    revision: str | None = None,
    is_trained: bool = True,
) -> list[str]:
    """Look for what would keep a ControlNet from being loaded or made, without loading anything.

    Of what is on the hub, the configuration files are fetched. Problems of the pipeline itself are
    left to `pipeline_folder.problems`.

    Args:
        pretrained_model_name_or_path: the pipeline.
        controlnet_model_name_or_path: the ControlNet's own folder or hub name; None if one is made
            from the transformer with the given numbers of layers.
        num_double_layers, num_single_layers: of a ControlNet that is made; of one that is loaded,
            those it is expected to have, None if none in particular.
        revision: of the pipeline.
        is_trained: False: images are made with it.

    Returns:
        Problems in sentences, with the way out.
    """
    transformer = _transformer_config(pretrained_model_name_or_path, revision)
    if controlnet_model_name_or_path is None:
        assert num_double_layers is not None and num_single_layers is not None
        return layer_problems(transformer, num_double_layers, num_single_layers)
    if pipeline_folder.is_local(controlnet_model_name_or_path):
        problems, config = folder_problems(Path(controlnet_model_name_or_path).expanduser(), None)
    else:
        try:
            folder = pipeline_folder.locate(controlnet_model_name_or_path, None, weights=False)
        except UserError as error:
            return [str(error)]
        problems, config = pipeline_folder.config_problems(folder, pipeline_folder.CONTROLNET)
    if config is not None:
        problems += fit_problems(controlnet_model_name_or_path, config, transformer)
        if is_trained:
            problems += training_problems(controlnet_model_name_or_path, config)
        problems += _other_layers(
            controlnet_model_name_or_path, config, num_double_layers, num_single_layers
        )
    return problems


def _transformer_config(
    pretrained_model_name_or_path: str, revision: str | None
) -> Mapping[str, Any] | None:
    """The configuration of a pipeline's transformer; None where it cannot be told."""
    try:
        pipeline = pipeline_folder.locate(
            pretrained_model_name_or_path, ["transformer"], revision, weights=False
        )
    except UserError:
        return None
    model = pipeline_folder.MODELS["transformer"]
    return pipeline_folder.config_problems(pipeline / "transformer", model)[1]


def folder_problems(
    folder: Path, variant: str | None
) -> tuple[list[str], Mapping[str, Any] | None]:
    """What is wrong with a ControlNet's folder by itself, and its configuration."""
    wrong = pipeline_folder.folder_problem(
        str(folder), _OPTION, "a FLUX.1 ControlNet in diffusers' layout"
    )
    if wrong is not None:
        return [wrong], None
    if not (folder / CONFIG_FILE).is_file():
        for inner in (folder / EXPORT_FOLDER, *sorted(folder.iterdir())):
            if (inner / CONFIG_FILE).is_file() and "controlnet" in inner.name.lower():
                return [
                    f"{_OPTION} is {str(folder)!r}, which has no config.json of its own but holds "
                    f"a ControlNet. Give {str(inner)!r}."
                ], None
        if (folder / "model_index.json").is_file():
            return [
                f"{_OPTION} is {str(folder)!r}, which is a whole pipeline, not a ControlNet. Give "
                f"the folder of a ControlNet, or leave the option out to make one from the "
                f"transformer."
            ], None
        if not any(folder.glob("*.safetensors")):
            return [
                f"{_OPTION} is {str(folder)!r}, which holds no ControlNet: there is neither a "
                f"config.json nor a safetensors file. Give the folder of one in diffusers' layout."
            ], None
    return pipeline_folder.model_problems(folder, pipeline_folder.CONTROLNET, variant)


def fit_problems(
    name: str, config: Mapping[str, Any], transformer: Mapping[str, Any] | None
) -> list[str]:
    """What does not fit the transformer (None: unknown)."""
    problems = []
    if config["num_layers"] < 1:
        problems.append(
            f"the ControlNet {name} has no double layers (num_layers is 0); this recipe needs at "
            f"least one."
        )
    if transformer is None:
        return problems
    differences = [
        f"{key} is {_plain(config[key])}, the transformer's {_plain(transformer[key])}"
        for key in _SHARED
        if _plain(config[key]) != _plain(transformer[key])
        # With an embedder, it is about what that makes of the control image.
        and not (key == "patch_size" and config.get("conditioning_embedding_channels") is not None)
    ]
    differences += [
        f"{key} is {config[key]}, the transformer has only {transformer[key]}"
        for key in ("num_layers", "num_single_layers")
        if config[key] > transformer[key]
    ]
    if differences:
        problems.append(
            f"the ControlNet {name} does not fit the transformer: {'; '.join(differences)}. Give a "
            f"ControlNet that was made for this base model; to train a new one, made from the "
            f"transformer, leave out {_OPTION}."
        )
    return problems


def training_problems(name: str, config: Mapping[str, Any]) -> list[str]:
    """Why a ControlNet that images can be made with cannot be trained here."""
    problems = []
    if config.get("num_mode") is not None:
        problems.append(
            f"the ControlNet {name} is a union of {config['num_mode']} modes (num_mode), which "
            f"this recipe cannot train. Give one for a single kind of control."
        )
    if config.get("conditioning_embedding_channels") is not None:
        problems.append(
            f"the ControlNet {name} reads its control image through a convolutional embedder "
            f"(conditioning_embedding_channels is {config['conditioning_embedding_channels']}); "
            f"this recipe trains those that read latents of the VAE. Give one where it is null."
        )
    return problems


def _other_layers(
    name: str, config: Mapping[str, Any], double: int | None, single: int | None
) -> list[str]:
    """Numbers of layers that were asked for and are not those of the ControlNet that is loaded."""
    return [
        f"model.num_{kind}_layers is {wanted}, but the ControlNet {name} has {config[key]} {kind} "
        f"layers, and is trained with those. Leave model.num_{kind}_layers out, or set it to "
        f"{config[key]}."
        for kind, key, wanted in (
            ("double", "num_layers", double),
            ("single", "num_single_layers", single),
        )
        if wanted is not None and wanted != config[key]
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def layer_problems(transformer: Mapping[str, Any] | None, double: int, single: int) -> list[str]:
    """What is wrong with the numbers of layers of a new ControlNet (transformer None: unknown)."""
    problems = []
    for kind, key, wanted, least in (
        ("double", "num_layers", double, 1),
        ("single", "num_single_layers", single, 0),
    ):
        option = f"model.num_{kind}_layers"
        if wanted < least:
            problems.append(f"{option} is {wanted}; a ControlNet has at least {least}.")
        elif transformer is not None and wanted > transformer[key]:
            problems.append(
                f"{option} is {wanted}, but the transformer that the ControlNet is made from has "
                f"only {transformer[key]} {kind} layers. Set {option} to {transformer[key]} or "
                f"less."
            )
    return problems
