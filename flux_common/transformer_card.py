"""What the model card of a transformer says that was trained as a whole."""

from __future__ import annotations

from typing import Any

from flux_common.card import averages, call_arguments, description
from launcher.training.private import public_name

_USAGE = """\
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

{averages}transformer = FluxTransformer2DModel.from_pretrained(
    {model_id!r}, subfolder="transformer", torch_dtype=torch.bfloat16
)
pipeline = FluxPipeline.from_pretrained(
    {base!r}, transformer=transformer, torch_dtype=torch.bfloat16
).to("cuda")
image = pipeline(
    "what the picture shows",
{arguments}
).images[0]
image.save("image.png")
"""


def describe(config: Any, model_id: str) -> dict[str, Any]:
    """The arguments of `hooks.types.ModelDescription`.

    Args:
        config: as `describe_model` gets it.
        model_id: the repository, which has the weights in `transformer/`.
    """
    return description(
        config,
        kind="A transformer",
        relation="finetune",
        tags=("full-finetune",),
        usage=_USAGE.format(
            model_id=model_id,
            base=public_name(config.model.pretrained_model_name_or_path),
            averages=averages(config, "ema/transformer"),
            arguments=call_arguments(config),
        ),
    )
