"""Aspect buckets: images of different shape, each trained at the nearest of a few sizes.

buckets = Buckets([(512, 512), (448, 576)], table.sizes)
buckets[0]       # (448, 576): the height and width that image 0 is brought to
buckets.groups   # uint8 [N]: what the sampler makes batches of one size by
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Ratios are compared as logarithms, rounded to this many digits: 1:2 and 2:1 are equally far from
# 1:1, which floating-point numbers do not always say.
_DIGITS = 9


class Buckets:
    """The size that each image of a data set is brought to.

    Args:
        sizes: (height, width) in pixels, at least one, all different.
        images: returns heights and widths of the images as stored, `[N, 2]`; called only where
            there is more than one size.

    Attributes:
        groups: position in `sizes` by image, uint8 or uint16 `[N]`; None: there is but one size.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], images: Callable[[], np.ndarray]) -> None:
        self.sizes = tuple(sizes)
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"sizes are {sizes}")
        self.groups = nearest(images(), self.sizes) if len(self.sizes) > 1 else None

    def __getitem__(self, index: int) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.sizes[0 if self.groups is None else int(self.groups[index])]

    def all_sizes(self, count: int) -> np.ndarray:
        """Height and width of each of the `count` images, int64 `[N, 2]`."""
        import numpy as np

        sizes = np.array(self.sizes, np.int64)
        if self.groups is None:
            return np.broadcast_to(sizes, (count, 2))
        return sizes[self.groups]


def nearest(images: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """The size that is nearest in aspect ratio; of several, nearest in area; then the first.

    Distances are those of the logarithms, so that twice as wide is as far as twice as high.

    Args:
        images: heights and widths, positive, `[N, 2]`.
        sizes: (height, width).

    Returns:
        Positions in `sizes`, `[N]`, uint8 if that is enough, else uint16.
    """
    import numpy as np

    logs = np.log(images.astype(np.float64))
    ratio, area = logs[:, 0] - logs[:, 1], logs[:, 0] + logs[:, 1]
    found = np.zeros(len(images), np.uint8 if len(sizes) <= 256 else np.uint16)
    best_ratio, best_area = np.full((2, len(images)), np.inf)
    for number, (height, width) in enumerate(sizes):
        by_ratio = np.abs(ratio - np.log(height / width)).round(_DIGITS)
        by_area = np.abs(area - np.log(height * width)).round(_DIGITS)
        nearer = (by_ratio < best_ratio) | ((by_ratio == best_ratio) & (by_area < best_area))
        found[nearer] = number
        best_ratio[nearer], best_area[nearer] = by_ratio[nearer], by_area[nearer]
    return found


def problems(buckets: Sequence[Sequence[int]], name: str, multiple: int) -> list[str]:
    """What is wrong with an option that lists sizes: one sentence per mistake.

    Args:
        buckets: as the user wrote them.
        name: what the option is called.
        multiple: what heights and widths have to be multiples of.
    """
    if not buckets:
        return [f"{name} is empty; list at least one [height, width], or leave it out"]
    found = []
    for number, sides in enumerate(buckets):
        if len(sides) != 2:
            found.append(f"{name} has {list(sides)}; each of them is [height, width]")
        elif any(side <= 0 or side % multiple for side in sides):
            near = [max(multiple, round(side / multiple) * multiple) for side in sides]
            found.append(
                f"{name} has {list(sides)}; heights and widths are multiples of {multiple}: the "
                f"nearest is {near}"
            )
        elif list(sides) in [list(other) for other in buckets[:number]]:
            found.append(f"{name} has {list(sides)} twice; leave one of them out")
    return found
