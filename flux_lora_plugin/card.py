"""What the model card of a LoRA says."""

from __future__ import annotations

from typing import Any

from flux_common.card import description
from launcher.training.markdown import code
from launcher.training.private import public_name

_USAGE = """\
import torch
from diffusers import FluxPipeline

pipeline = FluxPipeline.from_pretrained(
    {base!r}, torch_dtype=torch.bfloat16
).to("cuda")
pipeline.load_lora_weights({model_id!r})
image = pipeline(
    {prompt!r},
    height={height},
    width={width},
    guidance_scale={guidance_scale},
    num_inference_steps=28,
).images[0]
image.save("image.png")
"""


def describe(config: Any, model_id: str) -> dict[str, Any]:
    """The arguments of `hooks.types.ModelDescription`."""
    model, data = config.model, config.data
    height, width = data.sizes[0]
    prompt = data.instance_prompt
    on = "transformer and CLIP" if model.train_text_encoder else "the transformer"
    if model.lora_weights is None:
        details = f"LoRA of rank {model.rank} on {on}."
    else:  # which brings its rank
        details = f"LoRA on {on}."
    if prompt is not None:
        details += f" The prompt that calls for the subject: {code(prompt)}."
    return description(
        config,
        kind="Adapters (LoRA)",
        tags=("lora", "template:sd-lora"),
        dataset={name: getattr(data, name) for name in data.sources},
        details=details,
        usage=_USAGE.format(
            base=public_name(model.pretrained_model_name_or_path),
            model_id=model_id,
            prompt=prompt or "what the picture shows",
            height=height,
            width=width,
            guidance_scale=config.loss.guidance_scale,
        ),
        **({} if prompt is None else {"instance_prompt": prompt}),
    )
