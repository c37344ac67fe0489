"""Compare the ControlNet recipe's numbers with reference values from diffusers on torch.

    python benchmarks/parity.py REFERENCE_DIR CASE

REFERENCE_DIR holds `tiny-flux/` (a pipeline folder), `fixed_batch.safetensors`,
`cases/CASE/` (`controlnet_init/`, `outputs.safetensors`, `meta.json`, `params_*.safetensors`) and
perhaps `steps20.safetensors`. What is compared is computed by the recipe's own loading, encoding,
collation, loss cell, training step and optimizer.

Prints one JSON object of largest absolute differences (for gradients the worst relative L2 over
the parameters); null where the case has no such data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from launcher import quiet

# How the reference was trained; see its README.
LEARNING_RATE = 1e-3
ADAMW = dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-2)
CLIP = 1.0

Arrays = Mapping[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reference_dir", type=Path)
    parser.add_argument("case")
    arguments = parser.parse_args()
    quiet.install(verbose=False)

    import launcher.cpu
    from launcher.training import device

    if device.set_up("auto", 0, "graph") == "CPU":
        launcher.cpu.install()
    print(json.dumps(compare(arguments.reference_dir, arguments.case), indent=2))


def compare(reference_dir: Path, case: str) -> dict[str, float | bool | None]:
    """All figures of one case, by name."""
    folder = reference_dir / "cases" / case
    batch = load_file(reference_dir / "fixed_batch.safetensors")
    encoders = Encoders(str(reference_dir / "tiny-flux"))
    run = Run(str(reference_dir / "tiny-flux"), folder, batch)

    figures: dict[str, float | bool | None] = {}
    figures |= run.compare_forward_and_gradients(encoders, batch)
    parameters, losses = run.compare_fixed_batch(encoders, batch)
    steps20 = reference_dir / "steps20.safetensors"
    if steps20.is_file() and "losses_steps20" in run.meta:
        more_parameters, more_losses = run.compare_steps20(encoders, load_file(steps20))
        parameters, losses = parameters + more_parameters, losses + more_losses
    figures["params_after_3_max_abs"] = max(parameters, default=None)
    figures["losses_after_steps_max_abs"] = max(losses, default=None)
    return figures | encoders.compare(batch)


class Encoders:
    """Text encoders and VAE of the pipeline, through the recipe's encoding functions."""

    def __init__(self, pipeline: str) -> None:
        from flux_common import loading

        self.text_encoder, self.text_encoder_2 = loading.load_text_encoders(pipeline)
        self.vae = loading.load_vae(pipeline)

    def compare(self, batch: Arrays) -> dict[str, float | bool | None]:
        from flux_common.latents import encode_moments
        from flux_common.prompts import encode_clip, encode_t5

        moments = [
            largest_difference(
                encode_moments(self.vae, batch[pixels]), recorded_moments(batch, name)
            )
            for name, pixels in (
                ("pixel", "pixel_values"),
                ("control", "conditioning_pixel_values"),
            )
        ]
        return {
            "t5_max_abs": largest_difference(
                encode_t5(self.text_encoder_2, batch["t5_input_ids"]), batch["prompt_embeds"]
            ),
            "clip_max_abs": largest_difference(
                encode_clip(self.text_encoder, batch["clip_input_ids"]),
                batch["pooled_prompt_embeds"],
            ),
            "vae_moments_max_abs": max(moments),
        }

    def latents(self, moments: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """Packed latents of a recorded posterior draw."""
        from flux_common.latents import normalise, pack, sample_posterior

        shift, scale = (
            np.float32(self.vae.config[name]) for name in ("shift_factor", "scaling_factor")
        )
        return pack(normalise(sample_posterior(moments, eps), shift, scale))


class Run:
    """Training of one case's ControlNet."""

    def __init__(self, pipeline: str, folder: Path, batch: Arrays) -> None:
        from flux_common import loading
        from flux_controlnet_plugin.collate import ControlNetCollate

        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.transformer = loading.load_transformer(pipeline)
        # The loss cell's arguments for recorded draws: no cache and no captions are asked.
        self.inputs = ControlNetCollate(None, None, loading.load_scheduler(pipeline)).assemble
        height, width = batch["pixel_values"].shape[-2:]
        self.size = (height // 16, width // 16)
        self.text_length = batch["prompt_embeds"].shape[1]
        # Networks without guidance embedding are told nothing, whatever this is.
        self.guidance_scale = float(batch["guidance"][0]) if "guidance" in batch else 1.0

    def loss(self) -> Any:
        """The loss cell around the case's start weights."""
        import mindspore as ms

        from flux_controlnet_plugin.controlnet import load_controlnet
        from flux_controlnet_plugin.loss import FluxControlNetLoss
        from launcher.training.freeze import set_trainable

        controlnet = load_controlnet(str(self.folder / "controlnet_init"))
        set_trainable(self.transformer, False)
        set_trainable(controlnet, True)
        return FluxControlNetLoss(
            controlnet,
            self.transformer,
            size=self.size,
            text_length=self.text_length,
            guidance_scale=self.guidance_scale,
            dtype=ms.float32,
        )

    def fixed_inputs(self, encoders: Encoders, batch: Arrays) -> tuple[np.ndarray, ...]:
        latents, control_latents = (
            encoders.latents(recorded_moments(batch, name), batch[f"eps_{name}"])
            for name in ("pixel", "control")
        )
        return self.inputs(
            latents,
            control_latents,
            batch["noise"],
            batch["u"],
            batch["prompt_embeds"],
            batch["pooled_prompt_embeds"],
        )

    def compare_forward_and_gradients(
        self, encoders: Encoders, batch: Arrays
    ) -> dict[str, float | bool | None]:
        from mindspore import Tensor

        from launcher.training.step import Gradients

        expected = load_file(self.folder / "outputs.safetensors")
        loss = self.loss()
        inputs = [Tensor(array) for array in self.fixed_inputs(encoders, batch)]
        value, gradients = Gradients(loss, loss.trainable_params())(*inputs)
        prediction = predict(loss, inputs)
        names = [name for name, p in loss.controlnet.parameters_and_names() if p.requires_grad]
        return {
            "loss_abs": abs(float(value) - float(expected["loss"])),
            "noise_pred_max_abs": largest_difference(prediction, expected["noise_pred"]),
            "grad_rel_l2_worst": worst_gradient(
                dict(zip(names, (g.asnumpy() for g in gradients), strict=True)), expected
            ),
            "fresh_controlnet_equals_base": self.fresh_equals_base(loss, inputs, prediction),
        }

    def fresh_equals_base(self, loss: Any, inputs: Sequence[Any], prediction: Any) -> bool | None:
        """Whether the base model alone predicts the same bits; None unless the case is fresh."""
        if self.meta.get("zero_layers_randomised", True):
            return None
        base = predict(loss, inputs, with_controlnet=False)
        return bool(np.array_equal(base, prediction))

    def compare_fixed_batch(
        self, encoders: Encoders, batch: Arrays
    ) -> tuple[list[float], list[float]]:
        """Differences of parameters and losses over repeated steps on the one batch."""
        inputs = self.fixed_inputs(encoders, batch)
        parameters, losses = [], []
        for suffix, clip in (("", CLIP), ("_clip0.05", 0.05)):
            files = {
                count: path
                for count in (1, 2, 3)
                if (
                    path := self.folder / f"params_fixed_batch{suffix}_after_{count}.safetensors"
                ).is_file()
            }
            recorded = [] if suffix else self.meta.get("losses_fixed_batch", [])
            if not files and not recorded:
                continue
            step, loss = self.step(clip)
            for count in range(1, max([*files, len(recorded)]) + 1):
                value, _, _ = step([inputs], LEARNING_RATE)
                if count <= len(recorded):
                    losses.append(abs(value - recorded[count - 1]))
                if count in files:
                    parameters.append(parameter_difference(loss, files[count]))
        return parameters, losses

    def compare_steps20(
        self, encoders: Encoders, recorded: Arrays
    ) -> tuple[list[float], list[float]]:
        """Differences of parameters (to step 3) and losses (all steps) on changing batches."""
        from flux_common.latents import encode_moments

        moments = {
            name: encode_moments(encoders.vae, recorded[f"images_{name}"])
            for name in ("pixel_values", "conditioning_pixel_values")
        }
        step, loss = self.step(CLIP)
        parameters, losses = [], []
        for number, samples in enumerate(recorded["sample_ids"]):
            inputs = self.inputs(
                encoders.latents(moments["pixel_values"][samples], recorded["eps_pixel"][number]),
                encoders.latents(
                    moments["conditioning_pixel_values"][samples], recorded["eps_control"][number]
                ),
                recorded["noise"][number],
                recorded["u"][number],
                recorded["images_prompt_embeds"][samples],
                recorded["images_pooled_prompt_embeds"][samples],
            )
            value, _, _ = step([inputs], LEARNING_RATE)
            losses.append(abs(value - self.meta["losses_steps20"][number]))
            file = self.folder / f"params_steps20_after_{number + 1}.safetensors"
            if number < 3 and file.is_file():
                parameters.append(parameter_difference(loss, file))
        return parameters, losses

    def step(self, clip: float) -> tuple[Any, Any]:
        from launcher.training.optim import AdamW
        from launcher.training.step import TrainStep

        loss = self.loss()
        return TrainStep(loss, AdamW(loss.trainable_params(), **ADAMW), max_grad_norm=clip), loss


def predict(loss: Any, inputs: Sequence[Any], with_controlnet: bool = True) -> np.ndarray:
    """The prediction that the loss cell compares with its target, in a graph of its own."""
    from parity_cells import Predict

    return Predict(loss, with_controlnet)(*inputs).asnumpy()


def recorded_moments(batch: Arrays, name: str) -> np.ndarray:
    return np.concatenate([batch[f"{name}_moments_mean"], batch[f"{name}_moments_logvar"]], axis=1)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape, f"shape {found.shape}, reference {expected.shape}"
    return float(np.abs(found.astype(np.float64) - expected).max())


def worst_gradient(found: Arrays, expected: Arrays) -> float:
    """Largest |found - expected| / |expected|; a gradient that torch lacks must be all zero."""
    worst = 0.0
    for name, gradient in found.items():
        reference = expected.get(f"grad/{name}", np.zeros_like(gradient)).astype(np.float64)
        size = np.linalg.norm(reference)
        difference = np.linalg.norm(gradient - reference)
        worst = max(worst, float(difference / size if size else difference))
    return worst


def parameter_difference(loss: Any, file: Path) -> float:
    found = {name: p.asnumpy() for name, p in loss.controlnet.parameters_and_names()}
    expected = load_file(file)
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    return max(largest_difference(found[name], expected[name]) for name in expected)


if __name__ == "__main__":
    main()
