"""Reference values of ControlNet training from diffusers on torch, for `benchmarks/parity.py`.

    python benchmarks/torch_environment.py        # prints the Python to run this with
    .venv-torch/bin/python benchmarks/reference/make_controlnet_reference.py OUT_DIR \\
        --tiny-flux examples/quickstart/tiny-flux \\
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
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")

import torch  # noqa: E402
from diffusers import (  # noqa: E402
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
)
from diffusers.utils.logging import set_verbosity_error  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402
from torch_controlnet import (  # noqa: E402
    AdamWStep,
    ControlNetLoss,
    image_ids,
    load_transformer,
    make_controlnet,
)
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel  # noqa: E402

GUIDANCE_SCALE = 3.5
LEARNING_RATE = 1e-3
ADAMW = dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
INPUTS = (
    "pixel_values", "conditioning_pixel_values", "clip_input_ids", "t5_input_ids", "eps_pixel",
    "eps_control", "noise", "u",
)  # fmt: skip
COMPACT_BATCH = (
    *INPUTS, "guidance", "prompt_embeds", "pooled_prompt_embeds", "pixel_moments_mean",
    "pixel_moments_logvar", "control_moments_mean", "control_moments_logvar",
)  # fmt: skip
CAPTIONS = [
    "a red circle on a green background",
    "two blue squares and a long yellow line, drawn with a soft pencil",
    "seven grey stones in a shallow river at dusk",
    "a white house",
    "an orange triangle in front of a purple wall",
    "black rain over a small harbour",
    "a bowl of green apples on a wooden table",
    "a pink cloud above a flat and empty landscape",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--tiny-flux", type=Path, required=True, help="a FLUX.1 pipeline folder")
    parser.add_argument("--height", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--width", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--double", type=int, default=1, help="double layers of the ControlNet")
    parser.add_argument("--single", type=int, default=1, help="single layers of the ControlNet")
    parser.add_argument("--rand", action="store_true", help="fill the layers that start at zero")
    parser.add_argument("--controlnet", type=Path, help="start weights instead of fresh ones")
    parser.add_argument("--no-guidance", action="store_true", help="drop the guidance embedding")
    parser.add_argument(
        "--text-length", type=int, default=512, help="T5 tokens of a new fixed batch (512)"
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="leave out what parity.py can do without: intermediate results, weights after steps",
    )
    parser.add_argument("--steps20", action="store_true", help="20 steps on changing batches too")
    parser.add_argument("--case", help="name of the case (rand_d2s0)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    set_verbosity_error()
    torch.manual_seed(options.seed)
    pipeline = options.out_dir / "tiny-flux"
    if not pipeline.exists():
        copy_pipeline(options.tiny_flux, pipeline, with_guidance=not options.no_guidance)
    parts = Parts(pipeline)
    save(parts.schedule(), options.out_dir / "scheduler.safetensors")

    file = options.out_dir / "fixed_batch.safetensors"
    if file.is_file():
        given = load_file(file)
        batch = complete_batch(parts, given)
    else:
        given = draw_batch(parts, options.height, options.width, options.text_length)
        batch = complete_batch(parts, given)
        save({n: t for n, t in batch.items() if not options.compact or n in COMPACT_BATCH}, file)
    steps = None
    if options.steps20:
        file = options.out_dir / "steps20.safetensors"
        if not file.is_file():
            save(draw_steps(parts, *given["pixel_values"].shape[-2:], text_length(given)), file)
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
    controlnet.register_to_config(_name_or_path=pipeline.name)  # no path of this machine
    controlnet.save_pretrained(folder / "controlnet_init")
    record_case(parts, folder, batch, steps, options.compact)
    print(folder)


class Parts:
    """The parts of a pipeline, float32, on the CPU."""

    def __init__(self, pipeline: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(pipeline, subfolder="tokenizer")
        self.tokenizer_2 = AutoTokenizer.from_pretrained(pipeline, subfolder="tokenizer_2")
        self.text_encoder = CLIPTextModel.from_pretrained(pipeline, subfolder="text_encoder")
        self.text_encoder_2 = T5EncoderModel.from_pretrained(pipeline, subfolder="text_encoder_2")
        self.vae = AutoencoderKL.from_pretrained(pipeline, subfolder="vae")
        self.transformer = load_transformer(pipeline)
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
            pipeline, subfolder="scheduler"
        )
        for part in (self.text_encoder, self.text_encoder_2, self.vae):
            part.requires_grad_(False).eval()

    def schedule(self) -> dict[str, Tensor]:
        return {"sigmas": self.scheduler.sigmas, "timesteps": self.scheduler.timesteps}

    def token_ids(self, captions: list[str], text_length: int) -> dict[str, Tensor]:
        """Token ids, padded to the full length."""

        def tokenize(tokenizer: Any, length: int) -> Tensor:
            return tokenizer(
                captions,
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            ).input_ids

        return {
            "clip_input_ids": tokenize(self.tokenizer, self.tokenizer.model_max_length),
            "t5_input_ids": tokenize(self.tokenizer_2, text_length),
        }

    def embed(self, ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both encoders see the padding, as in diffusers' FLUX pipeline."""
        return {
            "prompt_embeds": self.text_encoder_2(ids["t5_input_ids"])[0],
            "pooled_prompt_embeds": self.text_encoder(ids["clip_input_ids"]).pooler_output,
        }

    def posterior(self, pixels: Tensor, prefix: str) -> dict[str, Tensor]:
        distribution = self.vae.encode(pixels).latent_dist
        return {
            f"{prefix}_moments_{name}": getattr(distribution, name)
            for name in ("mean", "logvar", "std")
        }

    def latents(self, mean: Tensor, std: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A posterior draw: as it is, normalised, and packed."""
        raw = mean + std * eps
        normalised = (raw - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        b, c, h, w = normalised.shape
        patches = normalised.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return raw, normalised, patches.reshape(b, h // 2 * (w // 2), 4 * c)

    def noise_levels(self, u: Tensor) -> dict[str, Tensor]:
        """The rows of the scheduler's table at positions `u`; sigmas are looked up, not cast."""
        indices = (u * self.scheduler.config.num_train_timesteps).long()
        return {
            "indices": indices,
            "timesteps": self.scheduler.timesteps[indices],
            "sigmas": self.scheduler.sigmas[indices].view(-1, 1, 1),
        }


def copy_pipeline(source: Path, target: Path, *, with_guidance: bool) -> None:
    """Copy a pipeline folder, on request without the transformer's guidance embedding."""
    shutil.copytree(source, target)
    if with_guidance:
        return
    folder = target / "transformer"
    config = json.loads((folder / "config.json").read_text())
    config["guidance_embeds"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    kept = {name: value for name, value in weights.items() if "guidance_embedder" not in name}
    save(kept, folder / "diffusion_pytorch_model.safetensors")


def draw_images(count: int, height: int, width: int) -> Tensor:
    """Coloured gradients with a rectangle and some grain, `[count, 3, height, width]`."""
    rows = torch.linspace(-1, 1, height).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, width).view(1, 1, 1, -1)
    slope = torch.rand(2, count, 3, 1, 1) * 2 - 1
    images = slope[0] * rows + slope[1] * columns + 0.1 * torch.randn(count, 3, height, width)
    for image in images:
        top, left = (torch.rand(2) * torch.tensor([height, width]) / 2).long().tolist()
        image[:, top : top + height // 3, left : left + width // 3] = torch.rand(3, 1, 1) * 2 - 1
    return images.clamp(-1, 1)


def draw_eps(parts: Parts, height: int, width: int, *leading: int) -> Tensor:
    return torch.randn(*leading, parts.vae.config.latent_channels, height // 8, width // 8)


def draw_noise(parts: Parts, height: int, width: int, *leading: int) -> Tensor:
    tokens = height // 16 * (width // 16)
    return torch.randn(*leading, tokens, parts.transformer.config.in_channels)


def draw_batch(
    parts: Parts, height: int, width: int, text_length: int, size: int = 2
) -> dict[str, Tensor]:
    """The inputs of the fixed batch: images, captions, and every random draw."""
    return {
        "pixel_values": draw_images(size, height, width),
        "conditioning_pixel_values": draw_images(size, height, width),
        **parts.token_ids(CAPTIONS[:size], text_length),
        "eps_pixel": draw_eps(parts, height, width, size),
        "eps_control": draw_eps(parts, height, width, size),
        "noise": draw_noise(parts, height, width, size),
        "u": torch.randn(size).sigmoid(),
    }


@torch.no_grad()
def complete_batch(parts: Parts, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """All that is computed before the ControlNet runs, and the base model's own prediction."""
    batch = {name: given[name] for name in INPUTS}
    batch |= parts.embed(batch)
    batch |= parts.noise_levels(batch["u"])
    for prefix, pixels, packed in (
        ("pixel", "pixel_values", "pixel_latents"),
        ("control", "conditioning_pixel_values", "control_image"),
    ):
        batch |= parts.posterior(batch[pixels], prefix)
        mean, std = batch[f"{prefix}_moments_mean"], batch[f"{prefix}_moments_std"]
        raw, normalised, tokens = parts.latents(mean, std, batch[f"eps_{prefix}"])
        batch |= {
            f"{prefix}_latents_raw": raw,
            f"{prefix}_latents_unpacked": normalised,
            packed: tokens,
        }
    height, width = batch["pixel_values"].shape[-2:]
    batch["img_ids"] = image_ids(height // 16, width // 16)
    batch["text_ids_2d"] = torch.zeros(text_length(batch), 3)
    batch["text_ids"] = torch.zeros(len(batch["u"]), text_length(batch), 3)
    if parts.transformer.config.guidance_embeds:
        batch["guidance"] = torch.full((len(batch["u"]),), GUIDANCE_SCALE)

    sigmas = batch["sigmas"]
    noisy = (1.0 - sigmas) * batch["pixel_latents"] + sigmas * batch["noise"]
    target = batch["noise"] - batch["pixel_latents"]
    base = loss_of(parts, None, batch)
    prediction = parts.transformer(
        **base.inputs(
            parts.transformer,
            noisy,
            batch["timesteps"],
            batch["prompt_embeds"],
            batch["pooled_prompt_embeds"],
        )
    )[0]
    batch |= {
        "noisy_model_input": noisy,
        "target": target,
        "noise_pred_no_controlnet": prediction,
        "loss_no_controlnet": torch.nn.functional.mse_loss(prediction, target),
    }
    return batch


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


def loss_of(parts: Parts, controlnet: Any, batch: dict[str, Tensor]) -> ControlNetLoss:
    height, width = batch["pixel_values"].shape[-2:]
    return ControlNetLoss(
        controlnet,
        parts.transformer,
        text_ids=torch.zeros(text_length(batch), 3),
        image_ids=image_ids(height // 16, width // 16),
        guidance_scale=GUIDANCE_SCALE,
    )


def text_length(batch: dict[str, Tensor]) -> int:
    return batch["t5_input_ids"].shape[1]


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


def record_case(
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

    loss_module = start()
    controlnet = loss_module.controlnet
    filled = any(p.any() for n, p in controlnet.named_parameters() if n.startswith("controlnet_"))
    loss, details = loss_module(*fixed_inputs(batch))
    loss.backward()
    gradients = {name: p.grad for name, p in controlnet.named_parameters()}
    present = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    norm = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(gradient) for gradient in present.values()])
    )
    outputs = {
        "loss": loss,
        "noise_pred": details["noise_pred"],
        "grad_norm": norm,
        **{f"grad/{name}": gradient for name, gradient in present.items()},
    }
    for kind, prefix in (
        ("block_samples", "controlnet_block_samples"),
        ("single_block_samples", "controlnet_single_block_samples"),
    ):
        for number, sample in enumerate(details[kind] or []):
            outputs[f"{prefix}.{number}"] = sample
    if "guidance" in batch:
        outputs["guidance"] = batch["guidance"]
    meta: dict[str, Any] = {
        "num_double_layers": controlnet.config.num_layers,
        "num_single_layers": controlnet.config.num_single_layers,
        "zero_layers_randomised": filled,
        "loss": loss.item(),
        "grad_norm": norm.item(),
        "n_params": len(gradients),
        "grads_none": [name for name in gradients if name not in present],
        "grads_all_zero": [name for name, gradient in present.items() if not gradient.any()],
    }

    fixed = [fixed_inputs(batch)] * 3
    runs: list[tuple[str, str, list[Any], float, tuple[int, ...]]] = [
        ("fixed_batch", "fixed_batch", fixed, 1.0, (1, 2, 3))
    ]
    if filled:
        runs.append(("fixed_batch_clip0.05", "fixed_batch_clip005", fixed, 0.05, (3,)))
    if steps is not None:
        changing = [step_inputs(parts, steps, n) for n in range(len(steps["sample_ids"]))]
        runs.append(("steps20", "steps20", changing, 1.0, (1, 3, 20)))
    for files, key, inputs, clip, kept in runs:
        loss_module = start()
        train_step = AdamWStep(
            loss_module, learning_rate=LEARNING_RATE, max_grad_norm=clip, **ADAMW
        )
        losses, norms = [], []
        for number, arguments in enumerate(inputs, start=1):
            value, norm_value = train_step(*arguments)
            losses.append(value)
            norms.append(norm_value)
            if number in kept and not compact:
                state = loss_module.controlnet.state_dict()
                save(state, folder / f"params_{files}_after_{number}.safetensors")
        meta |= {f"losses_{key}": losses, f"grad_norms_{key}": norms}
        if "clip" not in key:
            outputs |= {
                f"losses_{key}": torch.tensor(losses),
                f"grad_norms_{key}": torch.tensor(norms),
            }
    if compact:
        outputs = {n: t for n, t in outputs.items() if n in ("loss", "noise_pred") or "grad/" in n}
    save(outputs, folder / "outputs.safetensors")
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def save(tensors: dict[str, Tensor], file: Path) -> None:
    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, file
    )


if __name__ == "__main__":
    main()
