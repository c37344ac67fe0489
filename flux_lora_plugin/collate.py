"""From sample numbers to the arrays of a micro-batch: every random draw of a step is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_common.collate import Encoded, Timesteps, draw_prompts
from flux_lora_plugin.data import CLASS, INSTANCE, DreamBoothDataset

if TYPE_CHECKING:
    import numpy as np


class LoraCollate:
    """Makes the inputs of `FluxLoraLoss`.

    With prior preservation a micro-batch of B samples has 2B rows: B instance images, then B
    class images, with draws of their own.

    Args:
        encoded: the images' and captions' encodings.
        dataset: the samples.
        scheduler: the noise scheduler.
        prior_loss_weight: weight of the class images' loss; None: there are none.
        proportion_empty_prompts: probability of replacing an instance's caption by the empty one.
        density: how timesteps are drawn, see `flux_common.collate.Timesteps`.
    """

    def __init__(
        self,
        encoded: Encoded | None,
        dataset: DreamBoothDataset | None,
        scheduler: Any,
        *,
        prior_loss_weight: float | None = None,
        proportion_empty_prompts: float = 0.0,
        **density: Any,
    ) -> None:
        self.encoded = encoded
        self.dataset = dataset
        self.prior_loss_weight = prior_loss_weight
        self.proportion_empty_prompts = proportion_empty_prompts
        self.timesteps = Timesteps(scheduler, **density)

    def __call__(self, indices: Sequence[int], draws: Any) -> tuple[np.ndarray, ...]:
        """Draw a micro-batch. Returns the arguments of `FluxLoraLoss.construct`."""
        import numpy as np

        assert self.dataset is not None and self.encoded is not None
        captions, empty = self.dataset.captions, self.proportion_empty_prompts
        *instances, image_ids = self.draw(INSTANCE, indices, draws)
        parts = [instances]
        prompts = draw_prompts(captions, indices, draws, empty)
        if self.prior_loss_weight is not None:
            *classes, _ = self.draw(CLASS, indices, draws)
            parts.append(classes)
            prompts += [self.dataset.tables[CLASS].captions(0)[0]] * len(indices)
        latents, noise, u = (np.concatenate(arrays) for arrays in zip(*parts))
        return self.assemble(latents, noise, u, *self.encoded.texts(prompts), image_ids)

    def draw(self, kind: str, indices: Sequence[int], draws: Any) -> tuple[np.ndarray, ...]:
        """Of the samples' images of one kind: latents, noise, timestep positions, token ids."""
        assert self.dataset is not None and self.encoded is not None
        rows = [self.dataset.row(kind, index) for index in indices]
        latents, image_ids = self.encoded.latents(kind, rows, draws)
        noise = draws.normal(f"noise of the {kind}", latents.shape[1:])
        u = self.timesteps.draw(draws, f"timestep of the {kind}")
        return latents, noise, u, image_ids

    def assemble(
        self,
        latents: np.ndarray,
        noise: np.ndarray,
        u: np.ndarray,
        prompt_embeds: np.ndarray,
        text: np.ndarray,
        image_ids: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """The loss cell's arguments for given draws.

        Args:
            latents, noise: float32 `[N, L, C]`; with class images, these are the second half.
            u: `[N]`, picks the timesteps.
            prompt_embeds: `[N, T, d_model]`, from T5.
            text: CLIP's pooled embeddings or token ids.
            image_ids: `[L, 3]`, the tokens' positions.

        diffusers' loss is `mean(instance) + prior_loss_weight * mean(class)`. In terms of one mean
        over all rows, every weight is doubled. Each image is weighted for its own timestep;
        diffusers 0.35 applies the weights of both halves to either half, which fails for more than
        one image.
        """
        import numpy as np

        sigmas, timesteps, weights = self.timesteps.at(u)
        if self.prior_loss_weight is not None:
            factors = np.array([2, 2 * self.prior_loss_weight], np.float32)
            weights = weights * np.repeat(factors, len(weights) // 2)
        return latents, noise, sigmas, timesteps, weights, prompt_embeds, text, image_ids
