"""Reference values of LoRA training from diffusers and PEFT on torch, for `benchmarks/parity.py`.

    python benchmarks/torch_environment.py        # prints the Python to run this with
    .venv-torch/bin/python benchmarks/reference/make_lora_reference.py OUT_DIR \\
        --tiny-flux tests/data/tiny-flux --case prior \\
        --height 64 --width 96 --rank 4 --lora-alpha 16 --rand --prior 0.5
    .venv/bin/python benchmarks/parity.py OUT_DIR prior

Writes, in the layout that `parity.py` reads:

    tiny-flux/                      the pipeline, copied (with --no-guidance: without its
                                    guidance embedding)
    fixed_batch.safetensors         one batch: pixels, token ids, and everything up to target
    scheduler.safetensors           sigmas and timesteps
    cases/CASE/pytorch_lora_weights.safetensors
                                    the adapters at the start, written by diffusers
    cases/CASE/outputs.safetensors  noise_pred, loss, grad/NAME (before clipping; the names are
                                    those of the adapters' file)
    cases/CASE/params_*_after_N     the adapters after N steps of AdamW
    cases/CASE/meta.json            the case's options, scalars

Several cases, those of `make_controlnet_reference.py` too, can share OUT_DIR: a
`fixed_batch.safetensors` that is there already is kept, and its inputs are used. With --prior the
second half of the batch's rows are the class images.
"""

from __future__ import annotations

import argparse
import copy
import warnings

import torch
from fixed_batch import GUIDANCE_SCALE, add_options, prepare
from recording import fixed_batch_runs, record_case
from torch import Tensor
from torch_lora import CLIP_TARGETS, LoraLoss, add_adapter, unpack


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--case", required=True, help="name of the case")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--lora-alpha", type=int, help="the rank unless given")
    parser.add_argument(
        "--lora-layers", default="to_k,to_q,to_v,to_out.0", help="separated by commas"
    )
    parser.add_argument("--train-text-encoder", action="store_true", help="adapters on CLIP too")
    parser.add_argument("--weighting-scheme", default="none", help="the loss's weights")
    parser.add_argument("--prior", type=float, metavar="W", help="prior preservation, weight W")
    parser.add_argument("--rand", action="store_true", help="fill B, which starts at zero")
    options = parser.parse_args()
    # PEFT: it looks for a vocabulary beside the weights.
    warnings.filterwarnings("ignore", message="Could not find a config file")

    parts, batch = prepare(options)
    layers = [name.strip() for name in options.lora_layers.split(",")]
    sizes = dict(rank=options.rank, lora_alpha=options.lora_alpha or options.rank)
    add_adapter(parts.transformer, layers, **sizes)
    if options.train_text_encoder:
        add_adapter(parts.text_encoder, CLIP_TARGETS, **sizes)
    loss = LoraLoss(
        parts.transformer,
        parts.text_encoder if options.train_text_encoder else None,
        guidance_scale=GUIDANCE_SCALE,
        weighting_scheme=options.weighting_scheme,
        prior_loss_weight=options.prior,
    )
    if options.rand:
        fill_zero_layers(loss, 0.1 * sizes["rank"] / sizes["lora_alpha"])

    folder = options.out_dir / "cases" / options.case
    folder.mkdir(parents=True, exist_ok=True)
    loss.save_adapters(folder)
    about = {
        "recipe": "flux_lora_dreambooth",
        **sizes,
        "lora_layers": layers,
        "train_text_encoder": options.train_text_encoder,
        "weighting_scheme": options.weighting_scheme,
        "prior_loss_weight": options.prior,
        "zero_layers_randomised": options.rand,
    }
    runs = fixed_batch_runs(inputs(batch, options.train_text_encoder), clip_hard=options.rand)
    record_case(folder, lambda: copy.deepcopy(loss), LoraLoss.trained, about, runs, options.compact)
    print(folder)


@torch.no_grad()
def fill_zero_layers(loss: LoraLoss, size: float) -> None:
    """Give every B random weights of the given size, so that gradients reach A."""
    for name, parameter in loss.trained().items():
        if ".lora_B." in name:
            parameter.normal_(0, size)


def inputs(batch: dict[str, Tensor], train_text_encoder: bool) -> tuple[Tensor, ...]:
    """The arguments of `LoraLoss` for the fixed batch."""
    latents = batch["pixel_latents_unpacked"]
    return (
        latents,
        unpack(batch["noise"], *latents.shape[-2:]),
        batch["sigmas"].reshape(-1, 1, 1, 1),
        batch["timesteps"],
        batch["prompt_embeds"],
        batch["clip_input_ids" if train_text_encoder else "pooled_prompt_embeds"],
    )


if __name__ == "__main__":
    main()
