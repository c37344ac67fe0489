"""What has to be encoded of a DreamBooth data set."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flux_common.encodings import Images, stored_images
from flux_lora_plugin.data import DreamBoothDataset


def images_of(dataset: DreamBoothDataset, memory: Path | None) -> dict[str, Images]:
    """The images of every kind, of the subject and of its class.

    Args:
        memory: folder to remember the digests of files in.
    """
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


def captions_of(dataset: DreamBoothDataset, with_empty_prompt: bool) -> Iterator[str]:
    """Every caption of the images of every kind, and the empty one, if it is needed."""
    for table in dataset.tables.values():
        for row in range(len(table)):
            yield from table.captions(row)
    if with_empty_prompt:
        yield ""
