"""From sample numbers to the arrays of a micro-batch: every random draw of a step is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_common.collate import Timesteps, draw_prompts, encodings, sample_latents

if TYPE_CHECKING:
    import numpy as np


class ControlNetCollate:
    """Makes the inputs of `FluxControlNetLoss`.

    Args:
        cache: encodings, see `flux_common.encode`.
        captions: sample number to its captions, of which one is drawn each time.
        scheduler: the noise scheduler.
        proportion_empty_prompts: probability of replacing a caption by the empty one.
        density: how timesteps are drawn, see `flux_common.collate.Timesteps`.
    """

    def __init__(
        self,
        cache: Any,
        captions: Any,
        scheduler: Any,
        *,
        proportion_empty_prompts: float = 0.0,
        **density: Any,
    ) -> None:
        self.cache = cache
        self.captions = captions
        self.timesteps = Timesteps(scheduler, **density)
        self.proportion_empty_prompts = proportion_empty_prompts

    def __call__(self, indices: Sequence[int], draws: Any) -> tuple[np.ndarray, ...]:
        """Draw a micro-batch. Returns the arguments of `FluxControlNetLoss.construct`."""
        latents = sample_latents(self.cache, "target", indices, draws)
        control_latents = sample_latents(self.cache, "condition", indices, draws)
        noise = draws.normal("noise", latents.shape[1:])
        u = self.timesteps.draw(draws)
        prompts = draw_prompts(self.captions, indices, draws, self.proportion_empty_prompts)
        texts = encodings(self.cache, prompts)
        return self.assemble(latents, control_latents, noise, u, *texts)

    def assemble(
        self,
        latents: np.ndarray,
        control_latents: np.ndarray,
        noise: np.ndarray,
        u: np.ndarray,
        prompt_embeds: np.ndarray,
        pooled_prompt_embeds: np.ndarray,
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
        )
