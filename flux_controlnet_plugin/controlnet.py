"""The ControlNet: loaded or made from the transformer, checked, and exported for diffusers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flux_common import loading, pipeline_folder
from flux_common.export import as_float32, write_parameters
from launcher.training import atomic
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from mindspore import nn

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

#: The folder that `export_controlnet` makes, and what is in it: diffusers' names.
EXPORT_FOLDER = "controlnet"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def controlnet_problems(
    pretrained_model_name_or_path: str,
    controlnet_model_name_or_path: str | None = None,
    *,
    num_double_layers: int | None,
    num_single_layers: int | None,
    revision: str | None = None,
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

    Returns:
        Problems in sentences, with the way out.
    """
    transformer = _transformer_config(pretrained_model_name_or_path, revision)
    if controlnet_model_name_or_path is None:
        assert num_double_layers is not None and num_single_layers is not None
        return _layer_problems(transformer, num_double_layers, num_single_layers)
    if pipeline_folder.is_local(controlnet_model_name_or_path):
        problems, config = _folder_problems(Path(controlnet_model_name_or_path).expanduser(), None)
    else:
        try:
            folder = pipeline_folder.locate(controlnet_model_name_or_path, None, weights=False)
        except UserError as error:
            return [str(error)]
        problems, config = pipeline_folder.config_problems(folder, pipeline_folder.CONTROLNET)
    if config is not None:
        problems += _fit_problems(controlnet_model_name_or_path, config, transformer)
        problems += _other_layers(
            controlnet_model_name_or_path, config, num_double_layers, num_single_layers
        )
    return problems


def load_controlnet(
    controlnet_model_name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    transformer_config: Mapping[str, Any] | None = None,
) -> nn.Cell:
    """Load a ControlNet from its own folder or from the hub; float32, trainable.

    Args:
        controlnet_model_name_or_path: a folder with config.json and weights, or a hub name.
        transformer_config: if given, the ControlNet is checked to fit this transformer.

    Raises:
        UserError: missing, damaged, of another architecture, or not fit for the transformer.
    """
    folder = pipeline_folder.locate(controlnet_model_name_or_path, None, revision, variant)
    problems, config = _folder_problems(folder, variant)
    if config is not None:
        problems += _fit_problems(controlnet_model_name_or_path, config, transformer_config)
    if problems:
        raise UserError(" ".join(problems))
    with loading.quiet():
        from mindone.diffusers import FluxControlNetModel
    return loading.load_model(FluxControlNetModel, folder, variant)


def controlnet_from_transformer(
    transformer: nn.Cell, num_double_layers: int, num_single_layers: int
) -> nn.Cell:
    """Make a ControlNet from the first layers of a transformer; float32, trainable.

    mindone's `FluxControlNetModel.from_transformer` with the head sizes of the transformer, except
    that the weights are copied here, by their place in the model: mindone matches them by
    `Parameter.name`, which depends on where the transformer has been used before, and only warns
    of what it did not find. What the transformer does not have (the output layers and the
    embedder of the control image) is exactly zero, so that at first the ControlNet changes
    nothing.

    Args:
        num_double_layers: double-stream blocks, 1 to as many as the transformer has.
        num_single_layers: single-stream blocks, 0 to as many as the transformer has.

    Raises:
        UserError: the transformer has fewer layers.
    """
    import mindspore as ms
    import numpy as np
    from mindspore.nn.utils import no_init_parameters

    with loading.quiet():
        from mindone.diffusers import FluxControlNetModel

    config: Any = transformer.config
    problems = _layer_problems(config, num_double_layers, num_single_layers)
    if problems:
        raise UserError(" ".join(problems))
    with loading.quiet(), no_init_parameters():
        controlnet = FluxControlNetModel.from_transformer(
            transformer,
            num_layers=num_double_layers,
            num_single_layers=num_single_layers,
            attention_head_dim=config.attention_head_dim,
            num_attention_heads=config.num_attention_heads,
            load_weights_from_transformer=False,
        )
    sources = dict(transformer.parameters_and_names())
    for name, parameter in controlnet.parameters_and_names():
        if name.startswith(("controlnet_blocks.", "controlnet_single_blocks.", "controlnet_x_")):
            value = np.zeros(parameter.shape, np.float32)
        else:
            value = as_float32(sources[name])
        assert value.shape == tuple(parameter.shape), (name, value.shape, parameter.shape)
        parameter.set_data(ms.Tensor(value))
    return controlnet


def export_controlnet(
    controlnet: nn.Cell, directory: Path, *, dtype: Literal["fp32", "bf16", "fp16"] | None = None
) -> list[Path]:
    """Write `directory/controlnet/` in diffusers' layout: config.json and the weights.

        FluxControlNetModel.from_pretrained("directory/controlnet")   # diffusers on torch

    The folder appears whole or not at all; one that is there already is replaced.

    Args:
        directory: exists.
        dtype: of the weights in the file; None: as the parameters are.

    Returns:
        The two files.
    """
    target = Path(directory) / EXPORT_FOLDER
    with atomic.folder(target, replace=True) as work:
        (work / CONFIG_FILE).write_text(json.dumps(_export_config(controlnet), indent=2) + "\n")
        write_parameters(work / WEIGHTS_FILE, loading.file_names(controlnet), dtype=dtype)
    return [target / CONFIG_FILE, target / WEIGHTS_FILE]


def export_problems(output_dir: str) -> list[str]:
    """What `export_controlnet` would replace, although it is nobody's weights."""
    target = Path(output_dir).expanduser() / EXPORT_FOLDER
    # A folder with weights in it is one of a run, which the launcher refuses by itself.
    if not target.is_dir() or (target / WEIGHTS_FILE).exists() or not any(target.iterdir()):
        return []
    return [
        f"train.output_dir {output_dir!r} has a folder {EXPORT_FOLDER} with files in it, which is "
        f"where this run would write its weights. Choose another train.output_dir, or move the "
        f"folder away."
    ]


def _export_config(controlnet: Any) -> dict[str, Any]:
    """The arguments of the class and what diffusers itself adds; nothing that is left over from
    the transformer's configuration, and no path of this machine."""
    arguments = list(inspect.signature(type(controlnet).__init__).parameters)[1:]
    config = {
        "_class_name": "FluxControlNetModel",
        "_diffusers_version": controlnet.config["_diffusers_version"],
    }
    return config | {name: controlnet.config[name] for name in sorted(arguments)}


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


def _folder_problems(
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


def _fit_problems(
    name: str, config: Mapping[str, Any], transformer: Mapping[str, Any] | None
) -> list[str]:
    """What this recipe cannot train, and what does not fit the transformer (None: unknown)."""
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
    ]
    differences += [
        f"{key} is {config[key]}, the transformer has only {transformer[key]}"
        for key in ("num_layers", "num_single_layers")
        if config[key] > transformer[key]
    ]
    if differences:
        problems.append(
            f"the ControlNet {name} does not fit the transformer: {'; '.join(differences)}. Give a "
            f"ControlNet that was made for this base model, or leave out {_OPTION} to make one "
            f"from the transformer."
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


def _layer_problems(transformer: Mapping[str, Any] | None, double: int, single: int) -> list[str]:
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
