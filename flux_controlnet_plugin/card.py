"""What the model card of a ControlNet says."""

from __future__ import annotations

import shlex
from typing import Any

from flux_common.card import averages, call_arguments, description
from flux_common.controlnet_folder import EXPORT_FOLDER
from launcher.training.markdown import code
from launcher.training.private import public_name

_USAGE = """\
import torch
from diffusers import FluxControlNetModel, FluxControlNetPipeline
from diffusers.utils import load_image

{averages}controlnet = FluxControlNetModel.from_pretrained(
    {model_id!r}, subfolder={folder!r}, torch_dtype=torch.bfloat16
)
pipeline = FluxControlNetPipeline.from_pretrained(
    {base!r}, controlnet=controlnet, torch_dtype=torch.bfloat16
).to("cuda")
image = pipeline(
    "what the picture shows",
    control_image=load_image("control.png"),
    controlnet_conditioning_scale=1.0,
{arguments}
).images[0]
image.save("image.png")
"""

_MADE = {
    "canny": "edges, which OpenCV's Canny filter finds in the picture",
    "gray": "the picture in shades of grey",
    "blur": "the picture, blurred",
}


def describe(config: Any, model_id: str) -> dict[str, Any]:
    """The arguments of `hooks.types.ModelDescription`."""
    model, data = config.model, config.data
    made = _MADE.get(data.conditioning or "", "an image that lines up with the picture")
    origin = (
        f"It has {model.num_double_layers} double-stream and {model.num_single_layers} "
        "single-stream blocks, made from those of the base model."
    )
    if model.controlnet_model_name_or_path is not None:
        name = code(public_name(model.controlnet_model_name_or_path))
        origin = f"The training went on from the ControlNet {name}."
    return description(
        config,
        kind="A ControlNet",
        relation="adapter",
        tags=("controlnet",),
        details=f"The control image is {made}. {origin}",
        usage=_USAGE.format(
            base=public_name(model.pretrained_model_name_or_path),
            model_id=model_id,
            folder=EXPORT_FOLDER,
            averages=averages(config, f"ema/{EXPORT_FOLDER}"),
            arguments=call_arguments(config),
        ),
        commands=_commands(model_id, public_name(model.pretrained_model_name_or_path)),
        inference=True,
    )


def _commands(model_id: str, base: str) -> str:
    """How `launcher sample` uses it."""
    folder = model_id.rpartition("/")[2]
    sample = [
        *("launcher", "sample", f"{folder}/{EXPORT_FOLDER}", "--base", base),
        *("--prompt", "what the picture shows", "--control", "control.png"),
    ]
    return (
        f"{shlex.join(['hf', 'download', model_id, '--local-dir', folder])}\n{shlex.join(sample)}\n"
    )
