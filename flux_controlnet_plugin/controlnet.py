"""The ControlNet: loaded or made from the transformer, checked, and exported for diffusers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flux_common import loading
from launcher.training import atomic, safetensors_files
from launcher.training.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from mindspore import nn

#: What a ControlNet and the transformer it steers must have in common, and why. Its outputs are
#: added to the transformer's hidden states, and both get the same inputs.
_SHARED: dict[str, str] = {
    "num_attention_heads": "head sizes",
    "attention_head_dim": "head sizes",
    "in_channels": "latent channels",
    "joint_attention_dim": "T5's width",
    "pooled_projection_dim": "CLIP's width",
    "guidance_embeds": "guidance",
    "axes_dims_rope": "position embeddings",
    "patch_size": "patches",
}

#: The folder that `export_controlnet` makes, and what is in it: diffusers' names.
EXPORT_FOLDER = "controlnet"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def controlnet_problems(
    pretrained_model_name_or_path: str,
    controlnet_model_name_or_path: str | None = None,
    *,
    num_double_layers: int = 1,
    num_single_layers: int = 0,
    variant: str | None = None,
    controlnet_variant: str | None = None,
) -> list[str]:
    """Look for what would keep a ControlNet from being loaded or made, without loading anything.

    Only local folders are read; what is on the hub is checked when it is loaded. Problems of the
    pipeline itself are left to `pipeline_folder.problems`.

    Args:
        pretrained_model_name_or_path: the pipeline.
        controlnet_model_name_or_path: the ControlNet's own folder; None if one is made from the
            transformer with the given numbers of layers.

    Returns:
        Problems in sentences, with the way out.
    """
    return []


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
    with loading.quiet():
        from mindone.diffusers import FluxControlNetModel

    folder = Path(controlnet_model_name_or_path)
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
            value = _as_float32(sources[name])
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
    parameters = loading.file_names(controlnet)
    tensors = {
        name: safetensors_files.TensorInfo(_file_dtype(p, dtype), tuple(p.shape))
        for name, p in sorted(parameters.items())
    }
    target = Path(directory) / EXPORT_FOLDER
    with atomic.folder(target, replace=True) as work:
        (work / CONFIG_FILE).write_text(json.dumps(_export_config(controlnet), indent=2) + "\n")
        safetensors_files.write(
            work / WEIGHTS_FILE,
            tensors,
            lambda name: _as_file_dtype(_as_float32(parameters[name]), tensors[name].dtype),
            metadata={"format": "pt"},
        )
    return [target / CONFIG_FILE, target / WEIGHTS_FILE]


def _export_config(controlnet: Any) -> dict[str, Any]:
    """The arguments of the class and what diffusers itself adds; nothing that is left over from
    the transformer's configuration, and no path of this machine."""
    arguments = list(inspect.signature(type(controlnet).__init__).parameters)[1:]
    config = {
        "_class_name": "FluxControlNetModel",
        "_diffusers_version": controlnet.config["_diffusers_version"],
    }
    return config | {name: controlnet.config[name] for name in sorted(arguments)}


def _layer_problems(transformer: Mapping[str, Any], double: int, single: int) -> list[str]:
    problems = []
    if double < 1:
        problems.append(
            f"num_double_layers is {double}, but a ControlNet needs at least one double layer."
        )
    for option, wanted, has, kind in (
        ("num_double_layers", double, transformer["num_layers"], "double"),
        ("num_single_layers", single, transformer["num_single_layers"], "single"),
    ):
        if wanted > has:
            problems.append(
                f"{option} is {wanted}, but the transformer has only {has} {kind} layers to make "
                f"the ControlNet from. Set {option} to {has} or less."
            )
        elif wanted < 0:
            problems.append(f"{option} is {wanted}, but cannot be negative.")
    return problems


def _as_float32(parameter: Any) -> np.ndarray[Any, Any]:
    import mindspore as ms

    return parameter.value().astype(ms.float32).asnumpy()


_FILE_DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


def _file_dtype(parameter: Any, dtype: str | None) -> str:
    if dtype is not None:
        return _FILE_DTYPES[dtype]
    return {"Float32": "F32", "BFloat16": "BF16", "Float16": "F16"}[str(parameter.dtype)]


def _as_file_dtype(value: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    import ml_dtypes
    import numpy as np

    return value.astype({"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[dtype])
