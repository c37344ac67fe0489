"""The parts of a micro-batch that the FLUX recipes share: timesteps, latents, captions, embeddings.

Every draw has a name of its own (`launcher.training.random`), so what a recipe draws besides
changes none of these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flux_common.encodings import FluxEncodings
from flux_common.flow_matching import (
    WeightingScheme,
    loss_weights,
    sample_density,
    timestep_indices,
)
from flux_common.latents import image_ids, normalise, pack, sample_posterior

if TYPE_CHECKING:
    import numpy as np


class Timesteps:
    """Draws timesteps, and looks up what belongs to them.

    Args:
        scheduler: the `FlowMatchEulerDiscreteScheduler`. FLUX.1-dev's shifts its sigmas only
            at inference; untouched, row i of its table is timestep 1000 - i at sigma
            timestep / 1000.
        weighting_scheme: see `flux_common.flow_matching`.
        shape: `logit_mean`, `logit_std`, `mode_scale` of the scheme.
    """

    def __init__(
        self, scheduler: Any, weighting_scheme: WeightingScheme = "logit_normal", **shape: float
    ) -> None:
        self.sigmas = scheduler.sigmas.asnumpy()
        self.timesteps = scheduler.timesteps.asnumpy()
        self.weighting_scheme = weighting_scheme
        self.shape = shape

    def draw(self, draws: Any, name: str = "timestep") -> np.ndarray:
        """float64 `[B]`: positions in the table, in 0..1."""
        return sample_density(draws.uniform(name), self.weighting_scheme, **self.shape)

    def at(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 `[B]` each: sigmas, timesteps and loss weights at positions `u`."""
        import numpy as np

        rows = timestep_indices(u, len(self.timesteps))
        sigmas = self.sigmas[rows]
        timesteps = self.timesteps[rows].astype(np.float32)
        return sigmas, timesteps, loss_weights(sigmas, self.weighting_scheme)


class Encoded:
    """The encodings of a run, read as a step needs them.

    Args:
        cache: holds them.
        encodings: knows their keys.
    """

    def __init__(self, cache: Any, encodings: FluxEncodings) -> None:
        self._cache = cache
        self._encodings = encodings

    def latents(
        self, column: str, rows: Sequence[int], draws: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Packed latents, drawn from the images' posteriors.

        Args:
            column: which of the samples' images.
            rows: images of one size.

        Returns:
            float32 `[B, L, 4C]`, and the tokens' positions, float32 `[L, 3]`.
        """
        import numpy as np

        entries = [self._cache.get(self._encodings.image(column, row)) for row in rows]
        moments = np.stack([entry["moments"] for entry in entries]).astype(np.float32)
        _, channels, height, width = moments.shape
        eps = draws.normal(f"posterior of the {column}", (channels // 2, height, width))
        latents = sample_posterior(moments, eps)
        shift, scale = self._encodings.shift_factor, self._encodings.scaling_factor
        packed = pack(normalise(latents, np.float32(shift), np.float32(scale)))
        return packed, image_ids(height // 2, width // 2)

    def texts(self, prompts: Sequence[str]) -> tuple[np.ndarray, ...]:
        """`[B, ...]` each: `prompt_embeds`, and `pooled_prompt_embeds` or `clip_input_ids`."""
        import numpy as np

        entries = [self._cache.get(self._encodings.text(prompt)) for prompt in prompts]
        second = "clip_input_ids" if "clip_input_ids" in entries[0] else "pooled_prompt_embeds"
        return tuple(np.stack([entry[n] for entry in entries]) for n in ("prompt_embeds", second))


def draw_prompts(
    captions: Callable[[int], Sequence[str]],
    indices: Sequence[int],
    draws: Any,
    proportion_empty_prompts: float = 0.0,
) -> list[str]:
    """One caption per sample, or the empty one with the given probability."""
    choice = draws.uniform("caption")
    empty = draws.uniform("empty prompt") < proportion_empty_prompts
    prompts = []
    for row, index in enumerate(indices):
        texts = captions(index)
        prompts.append("" if empty[row] else texts[int(choice[row] * len(texts))])
    return prompts
