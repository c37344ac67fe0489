"""Reference values of ControlNet training from diffusers on torch, for `benchmarks/parity.py`.

    python benchmarks/torch_environment.py        # prints the Python to run this with
    .venv-torch/bin/python benchmarks/reference/make_controlnet_reference.py OUT_DIR \\
        --tiny-flux tests/data/tiny-flux \\
        --height 64 --width 96 --double 2 --single 0 --rand
    .venv/bin/python benchmarks/parity.py OUT_DIR rand_d2s0

Writes, in the layout that `parity.py` reads:

    tiny-flux/                      the pipeline, copied (with --no-guidance: without its
                                    guidance embedding)
    fixed_batch.safetensors         one batch of 2: pixels, token ids, and everything up to target
    scheduler.safetensors           sigmas and timesteps
    steps20.safetensors             --steps20: 8 images and the draws of 20 steps
    cases/CASE/controlnet_init/     start weights
    cases/CASE/outputs.safetensors  block samples, noise_pred, loss, grad/NAME (before clipping)
    cases/CASE/params_*_after_N     weights after N steps of AdamW
    cases/CASE/meta.json            scalars, parameters without gradient

Several cases can share OUT_DIR: a `fixed_batch.safetensors` that is there already is kept, and its
inputs are used. `--controlnet` starts from given weights, so that a recorded case can be
recomputed: copy its `fixed_batch.safetensors` to OUT_DIR and name its `controlnet_init`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxControlNetModel
from fixed_batch import (
    CAPTIONS,
    Parts,
    add_options,
    draw_eps,
    draw_images,
    draw_noise,
    loss_of,
    prepare,
    save,
    text_length,
)
from recording import Run, fixed_batch_runs, record_case
from safetensors.torch import load_file
from torch import Tensor
from torch_controlnet import ControlNetLoss, make_controlnet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--double", type=int, default=1, help="double layers of the ControlNet")
    parser.add_argument("--single", type=int, default=1, help="single layers of the ControlNet")
    parser.add_argument("--rand", action="store_true", help="fill the layers that start at zero")
    parser.add_argument("--controlnet", type=Path, help="start weights instead of fresh ones")
    parser.add_argument("--steps20", action="store_true", help="20 steps on changing batches too")
    parser.add_argument("--case", help="name of the case (rand_d2s0)")
    options = parser.parse_args()

    parts, batch = prepare(options)
    steps = None
    if options.steps20:
        file = options.out_dir / "steps20.safetensors"
        if not file.is_file():
            save(draw_steps(parts, *batch["pixel_values"].shape[-2:], text_length(batch)), file)
        steps = load_file(file)

    case = options.case or (
        f"{'rand' if options.rand else 'zero'}_d{options.double}s{options.single}"
    )
    folder = options.out_dir / "cases" / case
    if options.controlnet:
        controlnet = FluxControlNetModel.from_pretrained(options.controlnet)
    else:
        controlnet = make_controlnet(parts.transformer, options.double, options.single)
        if options.rand:
            fill_zero_layers(controlnet)
    controlnet.register_to_config(_name_or_path="tiny-flux")  # no path of this machine
    controlnet.save_pretrained(folder / "controlnet_init")
    record(parts, folder, batch, steps, options.compact)
    print(folder)


@torch.no_grad()
def draw_steps(
    parts: Parts, height: int, width: int, text_length: int, steps: int = 20
) -> dict[str, Tensor]:
    """Images with their embeddings, and which of them and which draws each step uses."""
    count, batch = len(CAPTIONS), 2
    embeddings = parts.embed(parts.token_ids(CAPTIONS, text_length))
    return {
        "images_pixel_values": draw_images(count, height, width),
        "images_conditioning_pixel_values": draw_images(count, height, width),
        **{f"images_{name}": value for name, value in embeddings.items()},
        "sample_ids": torch.stack([torch.randperm(count)[:batch] for _ in range(steps)]),
        "eps_pixel": draw_eps(parts, height, width, steps, batch),
        "eps_control": draw_eps(parts, height, width, steps, batch),
        "noise": draw_noise(parts, height, width, steps, batch),
        "u": torch.randn(steps, batch).sigmoid(),
        "text_ids_2d": torch.zeros(text_length, 3),
    }


def fill_zero_layers(controlnet: FluxControlNetModel) -> None:
    """Give the layers that start at zero random weights, so that gradients reach everything."""
    with torch.no_grad():
        for name, parameter in controlnet.named_parameters():
            if name.startswith("controlnet_"):
                parameter.normal_(0, 0.1 if parameter.ndim > 1 else 0.02)


def fixed_inputs(batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The arguments of `ControlNetLoss` for the fixed batch."""
    return tuple(
        batch[name]
        for name in (
            "pixel_latents", "control_image", "noise", "sigmas", "timesteps", "prompt_embeds",
            "pooled_prompt_embeds",
        )
    )  # fmt: skip


@torch.no_grad()
def step_inputs(parts: Parts, recorded: dict[str, Tensor], number: int) -> tuple[Tensor, ...]:
    """The arguments of `ControlNetLoss` for one of the 20 steps."""
    samples = recorded["sample_ids"][number]
    packed = []
    for pixels, eps in (
        ("images_pixel_values", "eps_pixel"),
        ("images_conditioning_pixel_values", "eps_control"),
    ):
        moments = parts.posterior(recorded[pixels][samples], "x")
        drawn = parts.latents(
            moments["x_moments_mean"], moments["x_moments_std"], recorded[eps][number]
        )
        packed.append(drawn[2])
    levels = parts.noise_levels(recorded["u"][number])
    return (
        *packed,
        recorded["noise"][number],
        levels["sigmas"],
        levels["timesteps"],
        recorded["images_prompt_embeds"][samples],
        recorded["images_pooled_prompt_embeds"][samples],
    )


def record(
    parts: Parts,
    folder: Path,
    batch: dict[str, Tensor],
    steps: dict[str, Tensor] | None,
    compact: bool,
) -> None:
    """Forward, backward and the training runs of one case."""

    def start() -> ControlNetLoss:
        controlnet = FluxControlNetModel.from_pretrained(folder / "controlnet_init")
        return loss_of(parts, controlnet, batch)

    def trained(loss: ControlNetLoss) -> dict[str, Any]:
        return dict(loss.controlnet.named_parameters())

    def details(found: Mapping[str, Any]) -> dict[str, Tensor]:
        samples = {
            f"controlnet_{kind}.{number}": sample
            for kind in ("block_samples", "single_block_samples")
            for number, sample in enumerate(found[kind] or [])
        }
        return samples | {name: batch[name] for name in ("guidance",) if name in batch}

    controlnet = start().controlnet
    filled = any(p.any() for n, p in controlnet.named_parameters() if n.startswith("controlnet_"))
    about = {
        "num_double_layers": controlnet.config.num_layers,
        "num_single_layers": controlnet.config.num_single_layers,
        "zero_layers_randomised": filled,
    }
    runs = fixed_batch_runs(fixed_inputs(batch), clip_hard=filled)
    if steps is not None:
        changing = [step_inputs(parts, steps, n) for n in range(len(steps["sample_ids"]))]
        runs.append(Run("steps20", changing, (1, 3, 20)))
    record_case(folder, start, trained, about, runs, compact, details)


if __name__ == "__main__":
    main()
