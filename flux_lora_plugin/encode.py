"""Encode a DreamBooth data set."""

from __future__ import annotations

from functools import partial
from typing import Any

from flux_common.encode import encode_captions, encode_images
from flux_lora_plugin.data import DreamBoothDataset


def encode_dataset(
    models: Any, dataset: DreamBoothDataset, cache: Any, *, length: int, empty_prompt: bool
) -> None:
    """Encode every caption and image.

    Args:
        models: tokenizers, T5, VAE, and CLIP unless it is trained.
        dataset: the samples.
        cache: where the encodings go.
        length: T5 tokens per caption.
        empty_prompt: encode the empty caption too, for prompt dropout.
    """
    captions = [""] if empty_prompt else []
    for kind, table in dataset.tables.items():
        rows = range(len(table))
        captions += [caption for row in rows for caption in table.captions(row)]
        read = partial(_images, dataset, kind)
        encode_images(models["vae"], rows, (kind,), read, cache)
    encode_captions(models, captions, length, cache)


def _images(dataset: DreamBoothDataset, kind: str, row: int) -> tuple[Any]:
    return (dataset.image(kind, row),)
