"""What the model card of a LoRA says."""

from __future__ import annotations

from typing import Any

from flux_common.card import averages, call_arguments, description
from flux_common.lora_file import WEIGHTS_FILE
from launcher.training.markdown import code
from launcher.training.private import public_name

_USAGE = """\
import torch
from diffusers import FluxPipeline

pipeline = FluxPipeline.from_pretrained(
    {base!r}, torch_dtype=torch.bfloat16
).to("cuda")
{averages}pipeline.load_lora_weights({model_id!r}, weight_name={file!r})
image = pipeline(
    {prompt!r},
{arguments}
).images[0]
image.save("image.png")
"""


def describe(config: Any, model_id: str) -> dict[str, Any]:
    """The arguments of `hooks.types.ModelDescription`."""
    model, data = config.model, config.data
    prompt = data.instance_prompt
    on = "transformer and CLIP" if model.train_text_encoder else "the transformer"
    if model.lora_weights is None:
        details = f"LoRA of rank {model.rank} on {on}."
    else:  # which brings its rank
        details = f"LoRA on {on}, which went on from {code(public_name(model.lora_weights))}."
    if model.lora_weights is not None or model.lora_alpha not in (None, model.rank):
        details += (
            " diffusers 0.35 or newer reads their alpha from the file; older versions take it to "
            "be the rank."
        )
    if prompt is not None:
        details += f" The prompt that calls for the subject: {code(prompt)}."
    return description(
        config,
        kind="Adapters (LoRA)",
        relation="adapter",
        tags=("lora", "template:sd-lora"),
        details=details,
        usage=_USAGE.format(
            base=public_name(model.pretrained_model_name_or_path),
            model_id=model_id,
            prompt=prompt or "what the picture shows",
            averages=averages(config, "ema"),
            file=WEIGHTS_FILE,
            arguments=call_arguments(config),
        ),
        **({} if prompt is None else {"instance_prompt": prompt}),
    )
