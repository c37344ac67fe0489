"""What held-out samples tell of a ControlNet: the loss with the control, without, and with another
sample's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from flux_common.collate import Encoded, Timesteps
from flux_common.traced import TracedTransformer
from flux_common.velocity import add_noise
from flux_controlnet_plugin.encode import CONDITION, TARGET
from flux_controlnet_plugin.loss import FluxControlNetLoss
from launcher.training.random import StepDraws

if TYPE_CHECKING:
    from collections.abc import Callable

#: Positions in the table of timesteps, 0..1, at which each sample is looked at: high noise first.
LEVELS = (0.125, 0.375, 0.625, 0.875)
#: Stands for a step that no run comes to, so that no step draws the same numbers.
_STEP = 2**63


class ControlNetError(FluxControlNetLoss):
    """How far each sample's predicted velocity is off, without gradients.

    Args:
        controlnet, transformer, inputs: see `FluxControlNetLoss`. They stay another cell's.
    """

    def __init__(self, controlnet: Any | None, transformer: Any, **inputs: Any) -> None:
        super().__init__(controlnet, transformer, auto_prefix=False, **inputs)
        self.traced = TracedTransformer(transformer)

    def construct(
        self,
        scale: Tensor,
        latents: Tensor,
        control_latents: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
        image_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Errors and residuals of a batch.

        Args:
            scale: float32 scalar that the ControlNet's residuals are multiplied with; at 0 the
                prediction is the transformer's own.
            others: as for `FluxControlNetLoss.construct`.

        Returns:
            float32 `[B]`: the mean of `(prediction - (noise - latents))**2` over a sample.
            float32 `[B]`: see `TracedTransformer.construct`.
        """
        noisy = add_noise(latents, noise, sigmas)
        rest = (timesteps, prompt_embeds, pooled_prompt_embeds, image_ids)
        samples, single_samples = None, None
        if self.has_controlnet:
            samples, single_samples = self.residuals(noisy, control_latents, *rest)
            samples = self.scaled(samples, scale)
            single_samples = self.scaled(single_samples, scale)
        prediction, ratios = self.network_call(
            self.traced,
            self.transformer_takes_guidance,
            noisy,
            *rest,
            controlnet_block_samples=samples,
            controlnet_single_block_samples=single_samples,
        )
        error = prediction.astype(ms.float32) - (noise - latents)
        return ops.square(error).mean(axis=(1, 2)), ratios

    def scaled(self, samples: Any, scale: Tensor) -> Any:
        """The residuals times the scale, in their dtype; None stays None."""
        if samples is None:
            return None
        return [sample * scale.astype(sample.dtype) for sample in samples]


@dataclass(frozen=True)
class Item:
    """A held-out sample at one noise level.

    Attributes:
        row: number of the sample.
        level: of `LEVELS`.
        partner: the sample whose control takes the place of its own; None: there is none.
        slot: by which its noise is drawn.
    """

    row: int
    level: float
    partner: int | None
    slot: int


def batches_of(
    rows: Sequence[int], groups: np.ndarray | None, size: int
) -> Iterator[tuple[list[Item], int]]:
    """Held-out samples at all levels, in batches of one shape.

    Args:
        rows: their numbers, ascending.
        groups: the group of every sample of the data set, whose images have one size; None: all.
        size: of a batch.

    Returns:
        `size` items, and how many of them count: the last batch of a group is filled up by
        repeating its last item.
    """

    def other(row: int) -> int | None:
        """A sample before all of these, of the same size, for one that is alone of its size."""
        if groups is None:
            return rows[0] - 1 if rows[0] > 0 else None
        found = np.flatnonzero(groups[: rows[0]] == groups[row])
        return int(found[-1]) if len(found) else None

    by_group: dict[int, list[int]] = {}
    for row in rows:
        by_group.setdefault(0 if groups is None else int(groups[row]), []).append(row)
    slot = 0
    for members in by_group.values():
        items = []
        for place, row in enumerate(members):
            # The next one of its group: never itself, and each one's control is used once.
            partner = members[(place + 1) % len(members)] if len(members) > 1 else other(row)
            for level in LEVELS:
                items.append(Item(row, level, partner, slot))
                slot += 1
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch + [batch[-1]] * (size - len(batch)), len(batch)


class HeldOut:
    """The held-out samples of a run.

    Noise and noise levels are functions of the seed and the sample, the same at every validation;
    the caption is the first one.

    Args:
        error: the cell; its parameters are those that are trained.
        encoded: the samples' encodings.
        captions: sample number to its captions.
        scheduler: the noise scheduler.
        rows: numbers of the samples.
        groups: see `batches_of`.
        batch_size: samples at a time.
        seed: of the noise.
    """

    def __init__(
        self,
        error: ControlNetError,
        encoded: Encoded,
        captions: Callable[[int], Sequence[str]],
        scheduler: Any,
        rows: Sequence[int],
        groups: np.ndarray | None,
        batch_size: int,
        seed: int,
    ) -> None:
        self._error = error
        self._encoded = encoded
        self._captions = captions
        self._timesteps = Timesteps(scheduler)
        self._batches = list(batches_of(rows, groups, batch_size))
        self._samples = len(rows)
        self._seed = seed
        parameters = error.transformer.get_parameters()
        self._base_is_trained = any(p.requires_grad for p in parameters)
        self._base_errors: dict[int, np.ndarray] = {}

    def compile(self) -> None:
        """Compile for every shape of a batch, without running it. In graph mode."""
        shapes = set()
        for items, _ in self._batches:
            arrays = self.arrays(items)
            shape = tuple(array.shape for array in arrays)
            if shape not in shapes:
                shapes.add(shape)
                self._error.compile(Tensor(1.0, ms.float32), *map(Tensor, arrays))

    def figures(self) -> Mapping[str, float]:
        """What the samples tell now.

        Returns:
            `loss`, with the control; `loss_without_control` and `loss_shuffled_control`;
            `residual_norm`: that of the ControlNet's residuals, of the hidden states'; `samples`.
            Without a ControlNet only `loss` and `samples`; a sample whose size no other one has
            is not in the shuffled loss.
        """
        sums: dict[str, list[np.ndarray]] = {}
        for number, (items, count) in enumerate(self._batches):
            arrays = self.arrays(items)
            errors, ratios = self._run(arrays, 1.0)
            sums.setdefault("loss", []).append(errors[:count])
            if not self._error.has_controlnet:
                continue
            sums.setdefault("residual_norm", []).append(ratios[:count])
            if number not in self._base_errors or self._base_is_trained:
                self._base_errors[number], _ = self._run(arrays, 0.0)
            sums.setdefault("loss_without_control", []).append(self._base_errors[number][:count])
            if items[0].partner is not None:
                errors, _ = self._run(self.arrays(items, shuffled=True), 1.0)
                sums.setdefault("loss_shuffled_control", []).append(errors[:count])
        means = {n: float(np.concatenate(v).astype(np.float64).mean()) for n, v in sums.items()}
        return {**means, "samples": self._samples}

    def arrays(self, items: Sequence[Item], *, shuffled: bool = False) -> tuple[np.ndarray, ...]:
        """The cell's inputs but for the scale.

        Args:
            shuffled: each has its partner's control.
        """
        draws = StepDraws(self._seed, _STEP, [item.slot for item in items])
        rows = [item.row for item in items]
        latents, image_ids = self._encoded.latents(TARGET, rows, draws)
        controls = [item.partner for item in items] if shuffled else rows
        control_latents, _ = self._encoded.latents(CONDITION, controls, draws)
        noise = draws.normal("noise", latents.shape[1:])
        sigmas, timesteps, _ = self._timesteps.at(np.array([item.level for item in items]))
        texts = self._encoded.texts([self._captions(row)[0] for row in rows])
        return latents, control_latents, noise, sigmas, timesteps, *texts, image_ids

    def _run(self, arrays: tuple[np.ndarray, ...], scale: float) -> tuple[np.ndarray, np.ndarray]:
        errors, ratios = self._error(Tensor(scale, ms.float32), *map(Tensor, arrays))
        return errors.asnumpy(), ratios.asnumpy()


def held_out(
    config: Any, models: Mapping[str, Any], dataset: Any, encoded: Encoded, rows: Sequence[int]
) -> HeldOut:
    """The held-out samples of a run, from its configuration and parts."""
    from flux_common.config import network_inputs

    inputs = network_inputs(config.data, config.loss)
    return HeldOut(
        ControlNetError(models.get("controlnet"), models["transformer"], **inputs),
        encoded,
        dataset.captions,
        models["scheduler"],
        rows,
        dataset.groups,
        config.train.train_batch_size,
        config.train.seed,
    )


def in_words(figures: Mapping[str, float]) -> str:
    """A line for the user."""
    line = f"held-out loss {figures['loss']:.4g}"
    if "loss_without_control" in figures:
        line += f", without control {figures['loss_without_control']:.4g}"
    if "loss_shuffled_control" in figures:
        line += f", with another's {figures['loss_shuffled_control']:.4g}"
    if "residual_norm" in figures:
        line += f"; residuals are {figures['residual_norm']:.2%} of the hidden states"
    return line
