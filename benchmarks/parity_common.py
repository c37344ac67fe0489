"""What `parity.py` does alike for every recipe."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

# How the reference was trained; see `reference/recording.py`.
LEARNING_RATE = 1e-3
ADAMW = dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-2)
CLIP = 1.0

Arrays = Mapping[str, np.ndarray]


@functools.cache
def encoders_of(pipeline: str) -> Encoders:
    """The same ones for every case: they are compiled once."""
    return Encoders(pipeline)


class Encoders:
    """Text encoders and VAE of the pipeline, through the recipes' encoding functions."""

    def __init__(self, pipeline: str) -> None:
        from flux_common import loading

        self.text_encoder, self.text_encoder_2 = loading.load_text_encoders(pipeline)
        self.vae = loading.load_vae(pipeline)

    def compare(self, batch: Arrays) -> dict[str, float]:
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


class Case(ABC):
    """A recorded case. A recipe says how its loss cell is made and what it is given.

    Args:
        reference_dir: what the cases share.
        folder: the case's own files.
        meta: its `meta.json`.
    """

    #: Name of the figure that says whether a fresh start predicts as the base model does.
    fresh_equals_base: str

    def __init__(self, reference_dir: Path, folder: Path, meta: Mapping[str, Any]) -> None:
        from flux_common.latents import image_ids

        self.reference_dir = reference_dir
        self.folder = folder
        self.meta = meta
        self.pipeline = str(reference_dir / "tiny-flux")
        self.batch = load_file(reference_dir / "fixed_batch.safetensors")
        self.encoders = encoders_of(self.pipeline)
        height, width = self.batch["pixel_values"].shape[-2:]
        self.image_ids = image_ids(height // 16, width // 16)
        #: Arguments of the loss cell. Networks without guidance embedding are told no guidance,
        #: whatever this is.
        self.sizes = dict(
            text_length=self.batch["prompt_embeds"].shape[1],
            guidance_scale=float(self.batch["guidance"][0]) if "guidance" in self.batch else 1.0,
        )

    @abstractmethod
    def loss(self) -> Any:
        """The loss cell around the case's start weights."""

    @abstractmethod
    def trained(self, loss: Any) -> dict[str, Any]:
        """Its trained parameters, by the names they are recorded under."""

    @abstractmethod
    def fixed_inputs(self) -> tuple[np.ndarray, ...]:
        """The loss cell's arguments for the fixed batch."""

    @abstractmethod
    def predict(self, loss: Any, inputs: Sequence[Any], base: bool = False) -> np.ndarray:
        """The prediction that the loss cell compares with its target; or the base model's own."""

    def compare(self) -> dict[str, float | bool | None]:
        """All figures of the case, by name."""
        figures = self.compare_forward_and_gradients()
        parameters, losses = self.compare_training()
        figures["params_after_3_max_abs"] = max(parameters, default=None)
        figures["losses_after_steps_max_abs"] = max(losses, default=None)
        return figures | self.encoders.compare(self.batch)

    def compare_forward_and_gradients(self) -> dict[str, float | bool | None]:
        from mindspore import Tensor

        from launcher.training.step import Gradients

        expected = load_file(self.folder / "outputs.safetensors")
        loss = self.loss()
        trained = self.trained(loss)
        inputs = [Tensor(array) for array in self.fixed_inputs()]
        value, gradients = Gradients(loss, list(trained.values()))(*inputs)
        found = dict(zip(trained, (g.asnumpy() for g in gradients), strict=True))
        prediction = self.predict(loss, inputs)
        same = None
        if not self.meta.get("zero_layers_randomised", True):
            same = bool(np.array_equal(self.predict(loss, inputs, base=True), prediction))
        return {
            "loss_abs": abs(float(value) - float(expected["loss"])),
            "noise_pred_max_abs": largest_difference(prediction, expected["noise_pred"]),
            "grad_rel_l2_worst": worst_gradient(found, expected),
            self.fresh_equals_base: same,
        }

    def compare_training(self) -> tuple[list[float], list[float]]:
        """Differences of parameters and losses over repeated steps on the one batch."""
        inputs = self.fixed_inputs()
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
                    parameters.append(self.parameter_difference(loss, files[count]))
        return parameters, losses

    def step(self, clip: float) -> tuple[Any, Any]:
        """The compiled step from the start weights, and the loss cell that it trains."""
        from launcher.training.optim import AdamW
        from launcher.training.step import TrainStep

        loss = self.loss()
        return TrainStep(loss, AdamW(loss.trainable_params(), **ADAMW), max_grad_norm=clip), loss

    def parameter_difference(self, loss: Any, file: Path) -> float:
        found = {name: p.asnumpy() for name, p in self.trained(loss).items()}
        expected = load_file(file)
        assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
        return max(largest_difference(found[name], expected[name]) for name in expected)


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
