"""The ControlNet's samples: target image, control image, captions.

dataset = build_controlnet_dataset(
    dataset_name="examples/quickstart/data",
    conditioning_image_column="conditioning_image",
    sizes=[(64, 64)],
)
sample = dataset[0]   # sample.target, sample.condition: float32 [3, 64, 64] in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.training.buckets import Buckets
from launcher.training.dataset import ImageTextTable, open_table
from launcher.training.errors import UserError
from launcher.training.images import CONDITIONS, height_and_width, resize_and_crop, to_float

if TYPE_CHECKING:
    from launcher.training.images import Array


@dataclass(frozen=True)
class Sample:
    """One sample at the training resolution.

    Attributes:
        target: the image to learn, float32 `[3, H, W]` in [-1, 1].
        condition: the control image, float32 `[3, H, W]` in [-1, 1].
        captions: at least one.
        row: the row of the data set, counted from 0.
    """

    target: Array
    condition: Array
    captions: tuple[str, ...]
    row: int


class ControlNetDataset:
    """Samples by number.

    Both images are resized and cropped alike. A condition made on the fly is computed from the
    target after it was brought to the training resolution, so that its edges are sharp there.

    Args:
        table: images and captions; its image columns are the target and, if `conditioning` is
            None, the control image.
        sizes: training resolutions, (height, width) in pixels; of several, a sample has the one
            that is nearest to its target in aspect ratio.
        conditioning: makes the control image from the target, both uint8 `[H, W, 3]`; None: the
            data set has control images.

    Attributes:
        groups: the samples' sizes by number, `[N]`; None: there is one.
    """

    def __init__(
        self,
        table: ImageTextTable,
        sizes: Sequence[tuple[int, int]],
        conditioning: Callable[[Array], Array] | None = None,
    ) -> None:
        self.table = table
        self.buckets = Buckets(sizes, table.sizes)
        self.groups = self.buckets.groups
        self.conditioning = conditioning

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        """Read, decode and scale a sample. UserError if it cannot be used; names the row."""
        row = self.table[index]
        images = [resize_and_crop(image, *self.bucket(index)) for image in row.images]
        if self.conditioning is not None:
            images.append(self.conditioning(images[0]))
        target, condition = (to_float(image) for image in images)
        return Sample(target, condition, row.captions, row.row)

    def target(self, index: int) -> Array:
        """A sample's target image by itself, as `Sample.target`."""
        return to_float(self._resized(index, 0))

    def condition(self, index: int) -> Array:
        """A sample's control image by itself, as `Sample.condition`."""
        if self.conditioning is not None:
            return to_float(self.conditioning(self._resized(index, 0)))
        return to_float(self._resized(index, 1))

    def _resized(self, index: int, column: int) -> Array:
        image = self.table.image(index, self.table.image_columns[column])
        return resize_and_crop(image, *self.bucket(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a sample, without reading its images."""
        return self.table.captions(index)

    def bucket(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels that a sample is brought to."""
        return self.buckets[index]


def build_controlnet_dataset(
    *,
    sizes: Sequence[tuple[int, int]],
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    jsonl_for_train: str | None = None,
    image_column: str = "image",
    conditioning_image_column: str | None = None,
    caption_column: str = "text",
    conditioning: str | Callable[[Array], Array] | None = None,
    max_train_samples: int | None = None,
    cache_dir: str | None = None,
    check: bool = True,
) -> ControlNetDataset:
    """Open a data set and check every row of it.

    The options are those of diffusers' `train_controlnet_flux.py`, and `conditioning`.

    Args:
        sizes: (height, width) in pixels, multiples of 16, at least one, all different.
        dataset_name, dataset_config_name, jsonl_for_train, max_train_samples, cache_dir: as
            `launcher.training.dataset.open_table`.
        image_column: the target images.
        conditioning_image_column: the control images.
        caption_column: a caption or a list of them.
        conditioning: `canny`, `gray` or `blur`, or a function from uint8 `[H, W, 3]` to the same:
            make the control image from the target. Either this or `conditioning_image_column`.
        check: False leaves out the check of every row, where another process has done it.

    Raises:
        UserError: the options contradict each other, or the data cannot be used.
    """
    sizes = [height_and_width(size) for size in sizes]
    if conditioning is None and conditioning_image_column is None:
        raise UserError(
            "there is no control image: set data.conditioning_image_column to the column of the "
            f"data set that holds it, or data.conditioning to one of {', '.join(CONDITIONS)} to "
            "make it from the image."
        )
    if conditioning is not None and conditioning_image_column is not None:
        name = getattr(conditioning, "__name__", repr(conditioning))
        raise UserError(
            f"the control image is given twice: data.conditioning_image_column is "
            f"{conditioning_image_column!r}, and data.conditioning is {name}. Leave out one "
            f"of them."
        )
    if isinstance(conditioning, str):
        if conditioning not in CONDITIONS:
            raise UserError(
                f"conditioning is {conditioning!r}, and must be one of {', '.join(CONDITIONS)}."
            )
        conditioning = CONDITIONS[conditioning]
    image_columns = [image_column]
    if conditioning_image_column is not None:
        image_columns.append(conditioning_image_column)
    table = ImageTextTable(
        open_table(
            dataset_name=dataset_name,
            dataset_config_name=dataset_config_name,
            jsonl_for_train=jsonl_for_train,
            cache_dir=cache_dir,
            max_train_samples=max_train_samples,
        ),
        image_columns=image_columns,
        caption_column=caption_column,
    )
    if check:
        table.check()
    return ControlNetDataset(table, sizes, conditioning)
