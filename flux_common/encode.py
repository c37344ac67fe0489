"""Encode captions and images once, into a cache.

Keys: `text/<caption>` holds `prompt_embeds` and `pooled_prompt_embeds` (or, where CLIP is
trained, `clip_input_ids`); `<column>/<sample>` holds `moments`; `vae` holds the shift and scale
that sampled latents need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from flux_common.latents import encode_moments
from flux_common.prompts import encode_clip, encode_t5, tokenize
from launcher.training.errors import UserError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

#: Samples encoded together. A constant, so that each encoder compiles one graph.
BATCH_SIZE = 8


def text_key(caption: str) -> str:
    return f"text/{caption}"


def image_key(column: str, index: int) -> str:
    return f"{column}/{index}"


def encode_captions(
    models: Any, captions: Iterable[str], max_sequence_length: int, cache: Any
) -> None:
    """Put the embeddings of every distinct caption into the cache.

    Args:
        models: holds `tokenizer`, `tokenizer_2`, `text_encoder_2` and perhaps `text_encoder`.
        captions: may repeat.
        max_sequence_length: T5 tokens per caption.
        cache: gains, per caption, float32 `prompt_embeds [T, d_model]` and
            `pooled_prompt_embeds [hidden_size]`; without `text_encoder`, which then runs in the
            training step, int32 `clip_input_ids [77]` in the latter's place.
    """
    import numpy as np

    with_clip = "text_encoder" in models
    missing = [c for c in dict.fromkeys(captions) if text_key(c) not in cache]
    clip_length = models["tokenizer"].model_max_length

    def encode(batch: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        t5_ids = tokenize(models["tokenizer_2"], batch, max_sequence_length)
        clip_ids = tokenize(models["tokenizer"], batch, clip_length)
        prompt_embeds = encode_t5(models["text_encoder_2"], t5_ids)
        if not with_clip:
            return prompt_embeds, clip_ids.astype(np.int32)
        return prompt_embeds, encode_clip(models["text_encoder"], clip_ids)

    names = ("prompt_embeds", "pooled_prompt_embeds" if with_clip else "clip_input_ids")
    for caption, *arrays in _in_batches(missing, encode):
        for part, array in zip(("text_encoder_2", "text_encoder"), arrays):
            _require_finite(array, part, f"the caption {caption!r}")
        cache.put(text_key(caption), dict(zip(names, arrays, strict=True)))


def encode_images(
    vae: Any,
    indices: Iterable[int],
    columns: Sequence[str],
    images: Callable[[int], Sequence[np.ndarray]],
    cache: Any,
) -> None:
    """Put the posterior moments of images into the cache.

    Args:
        vae: an `AutoencoderKL`.
        indices: the samples.
        columns: names of a sample's images in the cache's keys.
        images: sample number to its images, one per column, float32 `[3, H, W]` in [-1, 1].
        cache: gains, per sample and column, float32 `moments [2C, H/8, W/8]`.
    """
    import numpy as np

    missing = [i for i in indices if any(image_key(c, i) not in cache for c in columns)]

    def encode(batch: Sequence[int]) -> list[np.ndarray]:
        samples = [images(i) for i in batch]
        return [encode_moments(vae, np.stack(column)) for column in zip(*samples, strict=True)]

    for index, *moments in _in_batches(missing, encode):
        for column, array in zip(columns, moments, strict=True):
            _require_finite(array, "vae", f"the {column} image of sample {index}")
            cache.put(image_key(column, index), {"moments": array})
    cache.put(
        "vae",
        {
            "shift_factor": np.array(vae.config.shift_factor, np.float32),
            "scaling_factor": np.array(vae.config.scaling_factor, np.float32),
        },
    )


def _require_finite(array: np.ndarray, part: str, what: str) -> None:
    """Raise UserError if an encoding is of no use."""
    import numpy as np

    if not np.all(np.isfinite(array)):
        option = "mixed_precision" if part == "vae" else "text_encoders"
        raise UserError(
            f"{part} made numbers that are not finite of {what}. In float16 its range is too "
            f"small, or its weights are damaged: set precision.{option} to another dtype (bf16 "
            "has float32's range), or look at the weights."
        )


def _in_batches(
    items: Sequence[T], encode: Callable[[Sequence[T]], Sequence[np.ndarray]]
) -> Iterator[tuple[Any, ...]]:
    """Yield (item, its row of every output). The last batch is filled up to the full size."""
    for start in range(0, len(items), BATCH_SIZE):
        batch = items[start : start + BATCH_SIZE]
        full = [*batch, *[batch[-1]] * (BATCH_SIZE - len(batch))]
        outputs = encode(full)
        for row, item in enumerate(batch):
            # A copy, so that an entry does not keep the whole batch in memory.
            yield (item, *(output[row].copy() for output in outputs))
