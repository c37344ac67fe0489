"""Encode captions and images once, into a cache.

An entry of kind `text` holds `prompt_embeds [T, d_model]` and `pooled_prompt_embeds [hidden_size]`
(or, where CLIP is trained, `clip_input_ids [77]`, int32); one of kind `image` holds
`moments [2C, H/8, W/8]`, mean and log-variance of the posterior, from which every step draws anew.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from flux_common.encodings import FluxEncodings
from flux_common.latents import encode_moments
from flux_common.prompts import encode_clip, encode_t5, tokenize
from launcher.training import weights
from launcher.training.errors import UserError

if TYPE_CHECKING:
    import numpy as np

#: Inputs encoded together. A constant, so that each encoder compiles one graph.
BATCH_SIZE = 8


def encode(models: Mapping[str, Any], encodings: FluxEncodings, cache: Any) -> Any:
    """Make all encodings that the cache does not hold. Returns the cache.

    Args:
        models: tokenizers, T5, VAE, and CLIP unless it runs in the training step.

    Raises:
        UserError: an encoding is not finite, or an image can no longer be read.
    """
    for model in models.values():
        weights.require_loaded(model)
    encode_captions(models, encodings, cache)
    encode_images(models["vae"], encodings, cache)
    return cache


def encode_captions(models: Mapping[str, Any], encodings: FluxEncodings, cache: Any) -> None:
    """The embeddings of every distinct caption."""
    import numpy as np

    from launcher.training.cache.index import as_keys

    captions = encodings.distinct_captions()
    length = encodings.max_sequence_length
    clip_length = models["tokenizer"].model_max_length

    def describe(position: int) -> str:
        return f"the caption {textwrap.shorten(captions[position], 80)!r}"

    def make(positions: Sequence[int]) -> dict[str, np.ndarray]:
        batch = [captions[position] for position in positions]
        embeds = encode_t5(models["text_encoder_2"], tokenize(models["tokenizer_2"], batch, length))
        clip_ids = tokenize(models["tokenizer"], batch, clip_length)
        embeds = embeds.astype(encodings.text_dtype)
        _require_finite(embeds, "text_encoder_2", positions, describe)
        if "text_encoder" not in models:
            return {"prompt_embeds": embeds, "clip_input_ids": clip_ids.astype(np.int32)}
        pooled = encode_clip(models["text_encoder"], clip_ids).astype(encodings.text_dtype)
        _require_finite(pooled, "text_encoder", positions, describe)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    keys = as_keys([encodings.text(caption) for caption in captions])
    about = _model(models["text_encoder_2"]) | {
        "tokens": str(length),
        "dtype": str(encodings.text_dtype),
    }
    cache.fill("text", keys, make, describe, batch_size=BATCH_SIZE, about=about)


def encode_images(vae: Any, encodings: FluxEncodings, cache: Any) -> None:
    """The posterior moments of every distinct image, size by size."""
    import numpy as np

    for keys, columns, places in encodings.image_groups():

        def describe(position: int) -> str:
            column, row = places[position]  # noqa: B023  (used up within the loop)
            return f"the {columns[column]} image of row {row}"  # noqa: B023

        def read(position: int) -> np.ndarray:
            column, row = places[position]  # noqa: B023
            return encodings.images[columns[column]].read(int(row))  # noqa: B023

        def make(positions: Sequence[int]) -> dict[str, np.ndarray]:
            pixels = np.stack(images.get(positions))
            moments = encode_moments(vae, pixels).astype(encodings.image_dtype)
            _require_finite(moments, "vae", positions, describe)
            return {"moments": moments}

        height, width = encodings.images[columns[places[0][0]]].sizes[places[0][1]]
        about = _model(vae) | {"size": f"{height}x{width}", "dtype": str(encodings.image_dtype)}
        with _ReadAhead(read, np.flatnonzero(cache.missing(keys))) as images:
            cache.fill("image", keys, make, describe, batch_size=BATCH_SIZE, about=about)


class _ReadAhead:
    """Reads images in a thread, one at a time: those that are probably next, while the device
    encodes those before.

    Which are next only the cache knows, which leaves out what others have encoded meanwhile. A
    wrong guess costs a batch of images that were read for nothing.

    Args:
        read: position to its image. Never called twice at a time.
        expected: positions that will be asked for, ascending.
    """

    def __init__(self, read: Callable[[int], np.ndarray], expected: np.ndarray) -> None:
        self._read = read
        self._expected = expected
        self._begun: dict[int, Future[np.ndarray]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def get(self, positions: Sequence[int]) -> list[np.ndarray]:
        """The images at these positions, which may repeat. Raises what `read` raised for one."""
        wanted = self._begin(positions)
        at = int(self._expected.searchsorted(max(positions), side="right"))
        following = self._begin(self._expected[at : at + BATCH_SIZE].tolist())
        for position in self._begun.keys() - wanted.keys() - following.keys():
            self._begun[position].cancel()
        self._begun = following
        return [wanted[position].result() for position in positions]

    def _begin(self, positions: Sequence[int]) -> dict[int, Future[np.ndarray]]:
        for position in positions:
            if position not in self._begun:
                self._begun[position] = self._thread.submit(self._read, position)
        return {position: self._begun[position] for position in positions}

    def __enter__(self) -> _ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _model(part: Any) -> dict[str, str]:
    """The pipeline that a part was read from."""
    origin = weights.origin_of(part)
    return {} if origin is None else {"model": os.path.abspath(origin.files[0].parent.parent)}


def _require_finite(array: np.ndarray, part: str, positions: Sequence[int], describe: Any) -> None:
    """Raise UserError if an encoding is of no use. The cache would, too, but does not know what
    made it, nor in which options that has its dtype. To be called with what is kept, in which an
    overflow of the encoder still shows."""
    from launcher.training.cache.encoding import is_finite

    for row, position in zip(array, positions):
        if not is_finite(row):
            option = "mixed_precision" if part == "vae" else "text_encoders"
            raise UserError(
                f"{part} made numbers that are not finite of {describe(position)}. In float16 its "
                f"range is too small, or its weights are damaged: set precision.{option} to "
                "another dtype (bf16 has float32's range), or look at the weights."
            )
