"""From sample numbers to the arrays of a micro-batch: every random draw of a step is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_common.encode import image_key, text_key
from flux_common.flow_matching import (
    WeightingScheme,
    loss_weights,
    sample_density,
    timestep_indices,
)
from flux_common.latents import normalise, pack, sample_posterior

if TYPE_CHECKING:
    import numpy as np


class ControlNetCollate:
    """Makes the inputs of `FluxControlNetLoss`.

    Args:
        cache: encodings, see `flux_common.encode`.
        captions: sample number to its captions, of which one is drawn each time.
        scheduler: the `FlowMatchEulerDiscreteScheduler`. FLUX.1-dev's shifts its sigmas only
            at inference; untouched, row i of its table is timestep 1000 - i at sigma
            timestep / 1000.
        weighting_scheme, logit_mean, logit_std, mode_scale: see `flux_common.flow_matching`.
        proportion_empty_prompts: probability of replacing a caption by the empty one.
    """

    def __init__(
        self,
        cache: Any,
        captions: Any,
        scheduler: Any,
        *,
        weighting_scheme: WeightingScheme = "logit_normal",
        logit_mean: float = 0.0,
        logit_std: float = 1.0,
        mode_scale: float = 1.29,
        proportion_empty_prompts: float = 0.0,
    ) -> None:
        self.cache = cache
        self.captions = captions
        self.sigmas = scheduler.sigmas.asnumpy()
        self.timesteps = scheduler.timesteps.asnumpy()
        self.weighting_scheme = weighting_scheme
        self.density = dict(logit_mean=logit_mean, logit_std=logit_std, mode_scale=mode_scale)
        self.proportion_empty_prompts = proportion_empty_prompts

    def __call__(self, indices: Sequence[int], draws: Any) -> tuple[np.ndarray, ...]:
        """Draw a micro-batch. Returns the arguments of `FluxControlNetLoss.construct`."""
        latents = self.sample_latents("target", indices, draws)
        control_latents = self.sample_latents("condition", indices, draws)
        noise = draws.normal("noise", latents.shape[1:])
        u = sample_density(draws.uniform("timestep"), self.weighting_scheme, **self.density)
        prompts = self.draw_prompts(indices, draws)
        return self.assemble(latents, control_latents, noise, u, *self.embeddings(prompts))

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
        import numpy as np

        rows = timestep_indices(u, len(self.timesteps))
        sigmas = self.sigmas[rows]
        return (
            latents,
            control_latents,
            noise,
            sigmas,
            self.timesteps[rows].astype(np.float32),
            loss_weights(sigmas, self.weighting_scheme),
            prompt_embeds,
            pooled_prompt_embeds,
        )

    def sample_latents(self, column: str, indices: Sequence[int], draws: Any) -> np.ndarray:
        """float32 `[B, L, 4C]`: packed latents, drawn from the posterior."""
        import numpy as np

        moments = np.stack([self.cache.get(image_key(column, i))["moments"] for i in indices])
        _, channels, height, width = moments.shape
        eps = draws.normal(f"posterior of the {column}", (channels // 2, height, width))
        vae = self.cache.get("vae")
        latents = sample_posterior(moments, eps)
        return pack(normalise(latents, vae["shift_factor"], vae["scaling_factor"]))

    def draw_prompts(self, indices: Sequence[int], draws: Any) -> list[str]:
        """One caption per sample, or the empty one."""
        choice = draws.uniform("caption")
        empty = draws.uniform("empty prompt") < self.proportion_empty_prompts
        prompts = []
        for row, index in enumerate(indices):
            captions = self.captions(index)
            prompts.append("" if empty[row] else captions[int(choice[row] * len(captions))])
        return prompts

    def embeddings(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """float32 `[B, T, d_model]` from T5 and `[B, hidden_size]` from CLIP."""
        import numpy as np

        entries = [self.cache.get(text_key(prompt)) for prompt in prompts]
        return (
            np.stack([entry["prompt_embeds"] for entry in entries]),
            np.stack([entry["pooled_prompt_embeds"] for entry in entries]),
        )
