"""What is in a picture of a coloured shape: where the shape is, its colour, which shape it is.

For pictures as examples/quickstart/shapes.py draws them, and for what a model has made of their
captions. On drawn pictures of 32 pixels and more colours and shapes are right, and the place but
for pixels at the edge: at 64 pixels an IoU of 1.000 on plain backgrounds, of 0.993 on textured
ones, whose tones move the edge (tests/benchmarks/test_shape_scores.py).
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "quickstart"))

import shapes
from shapes import Scene

#: Width of the frame of a picture that is taken for background, in pixels.
FRAME = 3
#: What differs more from the background, in the channel that differs most, may be the shape. The
#: tones of a texture differ less, and any two colours more.
THRESHOLD = 55
#: Of a shape and what is taken for it, at least; and what is left of the right proportion of height
#: to width, or of width to height.
OVERLAP = 0.7
PROPORTION = 0.8
#: How far a colour may be from one with a name, in the channel that differs most: not half as far
#: as two that have one.
NAMED = 47


def segment(picture: np.ndarray) -> np.ndarray:
    """bool `[H, W]`: where a shape is, by its colour's distance to the background.

    The background's colour is the median of the picture's frame, the shape's that of the pixels
    that are far from it. A pixel belongs to the one that it is nearer to.

    Args:
        picture: uint8 `[H, W, 3]`.
    """
    values = picture.astype(np.float64)
    ground = _median(values[_frame(values.shape[:2])])
    far = np.abs(values - ground).max(axis=2) > THRESHOLD
    if not far.any():
        return far
    axis = _median(values[far]) - ground
    if not axis.any():  # as much that is lighter as that is darker
        return np.zeros_like(far)
    share = (values - ground) @ axis / (axis @ axis)
    return share > 0.5


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks, bool `[H, W]`; 0 where both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def colours_of(picture: np.ndarray, mask: np.ndarray) -> tuple[str | None, str | None]:
    """The names of the shape's colour and of the background's, of `shapes.COLOURS`.

    Args:
        picture: uint8 `[H, W, 3]`.
        mask: bool `[H, W]`, from `segment`.

    Returns:
        None for a colour that no named one is near, and for the shape's if there is none.
    """
    values = picture.astype(np.float64)
    ground = _nearest(_median(values[_frame(mask.shape)]))
    return (_nearest(_median(values[mask])) if mask.any() else None), ground


def shape_of(mask: np.ndarray) -> str | None:
    """Which of `shapes.SHAPES` a mask is: the one that overlaps it best when it is drawn in its
    place, as high and as wide. None: the mask is empty; none overlaps it by more than 0.7; or the
    best one is out of proportion, so that a long rectangle is no square and an oval no circle.

    The mask's largest part counts for place and size: a single pixel elsewhere moves neither.

    Args:
        mask: bool `[H, W]`, from `segment`.
    """
    if not mask.any():
        return None
    parts, _ = ndimage.label(mask)
    box = ndimage.find_objects(parts)[np.argmax(np.bincount(parts[mask])[1:])]
    height, width = (side.stop - side.start for side in box)
    overlaps = {}
    for name in shapes.SHAPES:
        drawn = np.zeros_like(mask)
        drawn[box] = _stretched(_large(name), height, width)
        overlaps[name] = iou(mask, drawn)
    best = max(overlaps, key=lambda name: overlaps[name])
    proportion = (height / width) / np.divide(*_large(best).shape)
    if overlaps[best] <= OVERLAP or min(proportion, 1 / proportion) < PROPORTION:
        return None
    return best


@functools.cache
def _large(name: str) -> np.ndarray:
    """A shape that fills its box."""
    mask = shapes.mask_of(Scene(name, "white", "plain", "black", 0.5, 0.5, 0.25), 400)
    return mask[ndimage.find_objects(mask.astype(int))[0]]


def _stretched(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at the centres of `height` times `width` pixels."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((height, width), mask.shape)
    )
    return mask[np.ix_(rows, columns)]


def _frame(size: tuple[int, ...]) -> np.ndarray:
    frame = np.ones(size, bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    return frame


def _median(colours: np.ndarray) -> np.ndarray:
    return np.median(colours, axis=0)


def _nearest(colour: np.ndarray) -> str | None:
    far = {name: np.abs(colour - value).max() for name, value in shapes.COLOURS.items()}
    name = min(far, key=lambda name: far[name])
    return name if far[name] <= NAMED else None
