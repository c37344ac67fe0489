"""The recipe `flux_lora_dreambooth`: teaching FLUX.1 a subject or a style with LoRA adapters.

`recipe` holds the hook implementations; the other modules hold what they call.
"""
