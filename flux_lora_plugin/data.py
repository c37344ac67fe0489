"""The samples of a DreamBooth run: an image of the subject, and perhaps one of its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_common.class_images import planned_files
from launcher.training.buckets import Buckets
from launcher.training.dataset import ImageTextTable, Table, open_table
from launcher.training.image_folder import ImageFolder, open_image_folder
from launcher.training.images import height_and_width, resize_and_crop, to_float

if TYPE_CHECKING:
    from launcher.training.images import Array

INSTANCE, CLASS = "instance", "class"


@dataclass(frozen=True)
class Sample:
    """One sample: images by kind, float32 `[3, H, W]` in [-1, 1], and the subject's captions."""

    images: Mapping[str, Array]
    captions: tuple[str, ...]


class DreamBoothDataset:
    """Samples by number.

    Where there are more class images than instance images, or fewer, the smaller set is gone
    through again, as diffusers' script does: a sample's images are its number modulo each size.

    Args:
        instances: images of the subject with captions.
        classes: images of the class; None: no prior preservation.
        sizes: training resolutions, (height, width) in pixels; of several, an image has the one
            that is nearest in aspect ratio. Several are for instances without classes only: the
            images of a sample are in one batch.

    Attributes:
        is_incomplete: some of the class images are still to be made.
        groups: the samples' sizes by number, `[N]`; None: there is one.
    """

    def __init__(
        self,
        instances: ImageTextTable,
        classes: ImageTextTable | None,
        sizes: Sequence[tuple[int, int]],
        is_incomplete: bool = False,
    ) -> None:
        if classes is not None and len(sizes) > 1:
            raise ValueError(f"class images beside instances of the sizes {sizes}")
        self.tables = {INSTANCE: instances} | ({} if classes is None else {CLASS: classes})
        self.buckets = Buckets(sizes, instances.sizes)
        self.groups = self.buckets.groups
        self.is_incomplete = is_incomplete

    def __len__(self) -> int:
        return max(map(len, self.tables.values()))

    def __getitem__(self, index: int) -> Sample:
        """Read, decode and scale a sample. UserError if it cannot be used; names the file."""
        images = {kind: self.image(kind, self.row(kind, index)) for kind in self.tables}
        return Sample(images, self.captions(index))

    def row(self, kind: str, index: int) -> int:
        """The row of a sample in the table of a kind."""
        return index % len(self.tables[kind])

    def image(self, kind: str, row: int) -> Array:
        """float32 `[3, H, W]` in [-1, 1]."""
        table = self.tables[kind]
        return to_float(
            resize_and_crop(table.image(row, table.image_columns[0]), *self.bucket(row))
        )

    def bucket(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels of a sample's images: its number is that of the instance, or
        there is one size."""
        return self.buckets[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a sample's instance image."""
        return self.tables[INSTANCE].captions(self.row(INSTANCE, index))


def build_dreambooth_dataset(
    *,
    source: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]],
    instance_data_dir: str | None = None,
    instance_prompt: str | None = None,
    image_column: str = "image",
    caption_column: str | None = None,
    class_images: Mapping[str, Any] | None = None,
) -> DreamBoothDataset:
    """Open the images and check every one of them.

    Args:
        source: arguments of `launcher.training.tables.open_table`.
        sizes: (height, width) in pixels, multiples of 16, all different; one with class images.
        instance_data_dir: a folder of images, in place of the source's data set; with a
            metadata.jsonl in it, or a `caption_column`, it is opened as a data set itself.
        instance_prompt: the caption of images without one.
        image_column, caption_column: of the data set.
        class_images: `class_data_dir`, `class_prompt` and `num_class_images`. Images that are
            not there yet are to be made before they are read (`class_images.make`).

    Raises:
        UserError: something cannot be used, or is not there.
    """
    table: Table
    if instance_data_dir is None:
        table = open_table(**source)
    elif caption_column is not None or Path(instance_data_dir, "metadata.jsonl").is_file():
        table = open_table(**{**source, "dataset_name": instance_data_dir})
    else:
        limit = source["max_train_samples"]
        table = open_image_folder(instance_data_dir, "data.instance_data_dir", limit)
    instances = ImageTextTable(table, [image_column], caption_column, instance_prompt)
    instances.check()
    classes, is_incomplete = None, False
    if class_images is not None:
        folder, files, present = planned_files(
            class_images["class_data_dir"], class_images["num_class_images"]
        )
        table = ImageFolder(folder, files)
        classes = ImageTextTable(table, ["image"], None, class_images["class_prompt"])
        classes.check(present)
        is_incomplete = len(present) < len(files)
    sides = [height_and_width(size) for size in sizes]
    return DreamBoothDataset(instances, classes, sides, is_incomplete)
