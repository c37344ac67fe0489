"""The ControlNet: loaded or made from the transformer, checked, and exported for diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flux_common import controlnet_folder, loading, pipeline_folder
from flux_common.controlnet_folder import EXPORT_FOLDER
from flux_common.export import export_model
from launcher.training import weights
from launcher.training.errors import UserError
from launcher.training.weights import Values, read_into, set_to_zero

if TYPE_CHECKING:
    from mindspore import nn

#: Where the names of weights begin that a transformer does not have.
_NEW = ("controlnet_blocks.", "controlnet_single_blocks.", "controlnet_x_")


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
    problems, config = controlnet_folder.folder_problems(folder, variant)
    if config is not None:
        problems += controlnet_folder.fit_problems(
            controlnet_model_name_or_path, config, transformer_config
        )
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
    that the weights are read anew from the transformer's files, in whatever dtype the ControlNet
    is to have: that of the transformer in memory may be narrower. (mindone matches parameters by
    `Parameter.name`, which depends on where the transformer has been used before, and only warns
    of what it did not find.) What the transformer does not have (the output layers and the
    embedder of the control image) is exactly zero, so that at first the ControlNet changes
    nothing.

    Args:
        transformer: from `flux_common.loading`.
        num_double_layers: double-stream blocks, 1 to as many as the transformer has.
        num_single_layers: single-stream blocks, 0 to as many as the transformer has.

    Raises:
        UserError: the transformer has fewer layers.
    """
    from mindspore.nn.utils import no_init_parameters

    with loading.quiet():
        from mindone.diffusers import FluxControlNetModel

    config: Any = transformer.config
    problems = controlnet_folder.layer_problems(config, num_double_layers, num_single_layers)
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
    origin = weights.origin_of(transformer)
    assert origin is not None, "the transformer was not loaded by flux_common.loading"
    parameters = loading.file_names(controlnet)

    def read() -> None:
        copied = {n: p for n, p in parameters.items() if not n.startswith(_NEW)}
        read_into(copied, origin.files)
        for name in parameters.keys() - copied.keys():
            set_to_zero(parameters[name])

    loading.fill(controlnet, origin, read)
    controlnet.set_train(False)
    return controlnet


def export_controlnet(
    controlnet: nn.Cell,
    directory: Path,
    *,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    values: Values | None = None,
) -> list[Path]:
    """Write `directory/controlnet/` in diffusers' layout: config.json and the weights.

        FluxControlNetModel.from_pretrained("directory/controlnet")   # diffusers on torch

    The folder appears whole or not at all; one that is there already is replaced.

    Args:
        directory: exists.
        dtype: of the weights in the file; None: as the parameters are.
        values: what to write of each parameter; None: what it is now.

    Returns:
        The two files.
    """
    return export_model(controlnet, Path(directory) / EXPORT_FOLDER, dtype=dtype, values=values)
