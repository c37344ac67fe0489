"""Cases of the recipe `flux_lora_dreambooth`, made by `reference/make_lora_reference.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from parity_common import Case, recorded_moments


class LoraCase(Case):
    """The case's folder has its start weights in a LoRA file that diffusers wrote."""

    fresh_equals_base = "fresh_adapters_equal_base"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from flux_lora_plugin.config import LoraModelSection

        self.section = LoraModelSection(
            pretrained_model_name_or_path=self.pipeline,
            lora_weights=str(self.folder),  # with rank, lora_alpha and layers
            train_text_encoder=self.meta["train_text_encoder"],
        )

    def loss(self) -> Any:
        from flux_lora_plugin.loss import FluxLoraLoss
        from flux_lora_plugin.models import build_networks
        from flux_lora_plugin.recipe import configure_trainable
        from hooks.types import Models

        models = configure_trainable(Models(build_networks(self.section, seed=0)))
        return FluxLoraLoss(models["transformer"], models.get("text_encoder"), **self.sizes)

    def trained(self, loss: Any) -> dict[str, Any]:
        from flux_lora_plugin.adapters import parameters

        parts = {"transformer": loss.transformer, "text_encoder": loss.text_encoder}
        return {
            f"{part}.{name}": parameter
            for part, model in parts.items()
            if model is not None
            for name, parameter in parameters(model).items()
        }

    def fixed_inputs(self) -> tuple[np.ndarray, ...]:
        from flux_common.loading import load_scheduler
        from flux_lora_plugin.collate import LoraCollate

        # Draws are recorded: no cache and no data set are asked.
        collate = LoraCollate(
            None,
            None,
            load_scheduler(self.pipeline),
            weighting_scheme=self.meta["weighting_scheme"],
            prior_loss_weight=self.meta["prior_loss_weight"],
        )
        batch = self.batch
        return collate.assemble(
            self.encoders.latents(recorded_moments(batch, "pixel"), batch["eps_pixel"]),
            batch["noise"],
            batch["u"],
            batch["prompt_embeds"],
            batch["clip_input_ids"].astype(np.int32)
            if self.section.train_text_encoder
            else batch["pooled_prompt_embeds"],
            self.image_ids,
        )

    def predict(self, loss: Any, inputs: Sequence[Any], base: bool = False) -> np.ndarray:
        from parity_cells import PredictWithAdapters

        if base:
            from flux_common import loading
            from flux_lora_plugin.loss import FluxLoraLoss

            clip = None
            if self.section.train_text_encoder:
                clip = loading.load_text_encoder(self.pipeline)
            loss = FluxLoraLoss(loading.load_transformer(self.pipeline), clip, **self.sizes)
        return PredictWithAdapters(loss)(*inputs).asnumpy()
