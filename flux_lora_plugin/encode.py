"""What has to be encoded of a DreamBooth data set."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from flux_common.encodings import Images, made_images, stored_images
from flux_lora_plugin.data import CLASS, DreamBoothDataset


def images_of(dataset: Any, memory: Path | None) -> dict[str, Images]:
    """The images of every kind, of the subject and of its class.

    Args:
        dataset: a `DreamBoothDataset`, or one like it, whose images are told apart by their pixels.
        memory: folder to remember the digests of files in.
    """
    if type(dataset) is not DreamBoothDataset:  # a subclass may make something else of an image
        count = len(dataset)
        return {
            kind: made_images(min(count, len(table)), partial(dataset.image, kind))
            for kind, table in dataset.tables.items()
        }
    return {
        kind: stored_images(
            table,
            table.image_columns[0],
            dataset.buckets.all_sizes(len(table)),
            partial(dataset.image, kind),
            memory,
        )
        for kind, table in dataset.tables.items()
    }


def captions_of(dataset: Any, with_empty_prompt: bool) -> Iterator[str]:
    """Every caption of the images of every kind, and the empty one, if it is needed."""
    for index in range(len(dataset)):
        yield from dataset.captions(index)
    if CLASS in dataset.tables:
        yield from dataset.tables[CLASS].captions(0)
    if with_empty_prompt:
        yield ""
