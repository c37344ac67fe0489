"""Cases of the recipe `flux_controlnet`, made by `reference/make_controlnet_reference.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from parity_common import CLIP, LEARNING_RATE, Case, recorded_moments
from safetensors.numpy import load_file


class ControlNetCase(Case):
    """The case's folder has its start weights in `controlnet_init/`."""

    fresh_equals_base = "fresh_controlnet_equals_base"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from flux_common import loading
        from flux_controlnet_plugin.collate import ControlNetCollate

        self.transformer = loading.load_transformer(self.pipeline)
        # The loss cell's arguments for recorded draws: no cache and no captions are asked.
        self.assemble = ControlNetCollate(
            None, None, loading.load_scheduler(self.pipeline)
        ).assemble

    def loss(self) -> Any:
        from flux_controlnet_plugin.controlnet import load_controlnet
        from flux_controlnet_plugin.loss import FluxControlNetLoss
        from launcher.training.freeze import set_trainable

        controlnet = load_controlnet(str(self.folder / "controlnet_init"))
        set_trainable(self.transformer, False)
        set_trainable(controlnet, True)
        return FluxControlNetLoss(controlnet, self.transformer, **self.sizes)

    def trained(self, loss: Any) -> dict[str, Any]:
        return {name: p for name, p in loss.controlnet.parameters_and_names() if p.requires_grad}

    def fixed_inputs(self) -> tuple[np.ndarray, ...]:
        batch = self.batch
        latents, control_latents = (
            self.encoders.latents(recorded_moments(batch, name), batch[f"eps_{name}"])
            for name in ("pixel", "control")
        )
        return self.assemble(
            latents,
            control_latents,
            batch["noise"],
            batch["u"],
            batch["prompt_embeds"],
            batch["pooled_prompt_embeds"],
            self.image_ids,
        )

    def predict(self, loss: Any, inputs: Sequence[Any], base: bool = False) -> np.ndarray:
        from parity_cells import Predict

        return Predict(loss, with_controlnet=not base)(*inputs).asnumpy()

    def compare_training(self) -> tuple[list[float], list[float]]:
        """The 20 steps on changing batches too, where they are recorded."""
        parameters, losses = super().compare_training()
        steps20 = self.reference_dir / "steps20.safetensors"
        if steps20.is_file() and "losses_steps20" in self.meta:
            more_parameters, more_losses = self.compare_steps20(load_file(steps20))
            parameters, losses = parameters + more_parameters, losses + more_losses
        return parameters, losses

    def compare_steps20(self, recorded: dict[str, np.ndarray]) -> tuple[list[float], list[float]]:
        """Differences of parameters (to step 3) and losses (all steps)."""
        from flux_common.latents import encode_moments

        moments = {
            name: encode_moments(self.encoders.vae, recorded[f"images_{name}"])
            for name in ("pixel_values", "conditioning_pixel_values")
        }
        step, loss = self.step(CLIP)
        parameters, losses = [], []
        for number, samples in enumerate(recorded["sample_ids"]):
            latents, control_latents = (
                self.encoders.latents(moments[pixels][samples], recorded[eps][number])
                for pixels, eps in (
                    ("pixel_values", "eps_pixel"),
                    ("conditioning_pixel_values", "eps_control"),
                )
            )
            inputs = self.assemble(
                latents,
                control_latents,
                recorded["noise"][number],
                recorded["u"][number],
                recorded["images_prompt_embeds"][samples],
                recorded["images_pooled_prompt_embeds"][samples],
                self.image_ids,
            )
            value, _, _ = step([inputs], LEARNING_RATE)
            losses.append(abs(value - self.meta["losses_steps20"][number]))
            file = self.folder / f"params_steps20_after_{number + 1}.safetensors"
            if number < 3 and file.is_file():
                parameters.append(self.parameter_difference(loss, file))
        return parameters, losses
