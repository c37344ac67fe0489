"""From sample numbers to the arrays of a micro-batch: every random draw of a step is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_common.collate import Encoded, Timesteps, draw_prompts
from flux_controlnet_plugin.encode import CONDITION, TARGET

if TYPE_CHECKING:
    import numpy as np


class ControlNetCollate:
    """Makes the inputs of `FluxControlNetLoss`.

    Args:
        encoded: the samples' encodings.
        captions: sample number to its captions, of which one is drawn each time.
        scheduler: the noise scheduler.
        proportion_empty_prompts: probability of replacing a caption by the empty one.
        density: how timesteps are drawn, see `flux_common.collate.Timesteps`.
    """

    def __init__(
        self,
        encoded: Encoded | None,
        captions: Any,
        scheduler: Any,
        *,
        proportion_empty_prompts: float = 0.0,
        **density: Any,
    ) -> None:
        self.encoded = encoded
        self.captions = captions
        self.timesteps = Timesteps(scheduler, **density)
        self.proportion_empty_prompts = proportion_empty_prompts

    def __call__(self, indices: Sequence[int], draws: Any) -> tuple[np.ndarray, ...]:
        """Draw a micro-batch. Returns the arguments of `FluxControlNetLoss.construct`."""
        assert self.encoded is not None
        latents, image_ids = self.encoded.latents(TARGET, indices, draws)
        control_latents, _ = self.encoded.latents(CONDITION, indices, draws)
        noise = draws.normal("noise", latents.shape[1:])
        u = self.timesteps.draw(draws)
        prompts = draw_prompts(self.captions, indices, draws, self.proportion_empty_prompts)
        texts = self.encoded.texts(prompts)
        return self.assemble(latents, control_latents, noise, u, *texts, image_ids)

    def assemble(
        self,
        latents: np.ndarray,
        control_latents: np.ndarray,
        noise: np.ndarray,
        u: np.ndarray,
        prompt_embeds: np.ndarray,
        pooled_prompt_embeds: np.ndarray,
        image_ids: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """The loss cell's arguments for given draws; `u` `[B]` picks the timesteps."""
        noise_levels = self.timesteps.at(u)
        return (
            latents,
            control_latents,
            noise,
            *noise_levels,
            prompt_embeds,
            pooled_prompt_embeds,
            image_ids,
        )
