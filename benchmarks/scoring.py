"""Scores of pictures that were made for scenes of shapes: which scenes, how, and as a table.

What is measured is said at the head of control.py. Also the options that the scripts have in common
that sample.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import shape_scores
from benchmarks.shape_scores import Scene, shapes

#: Seeds that something was trained on the scenes of, and what that is.
TRAINED_ON = {0: "the quickstart's data", 3: "its crosses", 1000: "the data of its base model"}
#: Of the scenes.
SEED = 2000


@dataclass(frozen=True)
class Scores:
    """Of several pictures.

    Attributes:
        iou: mean of the intersection over union of the shape that was drawn and the control's.
        colours: share of pictures whose shape and background have the caption's colours.
        shape: share of pictures with the caption's shape; None where the control may have another.
        both: share of pictures with the caption's colours and shape; None as for `shape`.
    """

    iou: float
    colours: float
    shape: float | None
    both: float | None


def held_out(
    samples: int,
    size: int,
    condition: str,
    names: Sequence[str] = shapes.KNOWN_SHAPES,
    seed: int = SEED,
) -> tuple[list[Scene], list[np.ndarray]]:
    """Scenes that nothing was trained on.

    Args:
        samples: how many.
        size: side of the control images in pixels.
        condition: one of `shapes.CONDITIONS`.
        names: of the shapes, of `shapes.SHAPES`.

    Returns:
        The scenes; and their control images, uint8 `[size, size, 3]` each.
    """
    scenes = [shapes.draw_scene(index, seed, names) for index in range(samples)]
    return scenes, [shapes.condition_of(scene, size, condition) for scene in scenes]


def score(
    pictures: Sequence[np.ndarray], scenes: Sequence[Scene], controlled: Sequence[Scene]
) -> Scores:
    """Score pictures.

    Args:
        pictures: uint8 `[H, W, 3]` each, with `H` and `W` equal.
        scenes: those whose captions the pictures were made from, one each.
        controlled: those whose control images they were made with, or are compared with.

    Raises:
        ValueError: there are not as many of one as of another.
    """
    overlaps, colours, kinds = [], [], []
    for picture, scene, control in zip(pictures, scenes, controlled, strict=True):
        mask = shape_scores.segment(picture)
        overlaps.append(shape_scores.iou(mask, shapes.mask_of(control, picture.shape[0])))
        colours.append(shape_scores.colours_of(picture, mask) == (scene.colour, scene.ground))
        kinds.append(shape_scores.shape_of(mask) == scene.shape)
    agree = all(scene is control for scene, control in zip(scenes, controlled))
    return Scores(
        iou=float(np.mean(overlaps)),
        colours=float(np.mean(colours)),
        shape=float(np.mean(kinds)) if agree else None,
        both=float(np.mean(np.logical_and(colours, kinds))) if agree else None,
    )


def heading(name: str) -> str:
    return f"{name:<22}{'IoU':>8}{'colours':>10}{'shape':>8}{'both':>8}"


def row(name: str, scores: Scores) -> str:
    rest = "".join(f"{s:>8.0%}" for s in (scores.shape, scores.both) if s is not None)
    return f"{name:<22}{scores.iou:>8.3f}{scores.colours:>10.0%}{rest}"


def add_common(parser: argparse.ArgumentParser) -> None:
    """What the scripts that sample have in common."""
    parser.add_argument("--base", type=Path, help="the pipeline's folder (the run's)")
    parser.add_argument("--samples", type=int, default=100, help="scenes (100)")
    parser.add_argument("--size", type=int, help="side of the pictures (the run's; 64)")
    parser.add_argument("--steps", type=int, default=28, help="of the sampler (28)")
    parser.add_argument("--condition", choices=shapes.CONDITIONS, default="outline")


def check_common(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.samples < 2:
        parser.error("--samples: at least 2, since some are made with another's control image")
    if options.size is not None and (options.size < 32 or options.size % 16):
        parser.error("--size: a multiple of 16, at least 32: in smaller ones shapes look alike")
    if options.steps < 1:
        parser.error("--steps: at least 1")


def picture_endings() -> set[str]:
    """Of the files that Pillow can write: `.png` and so on."""
    endings = Image.registered_extensions()
    return {ending for ending, kind in endings.items() if kind in Image.SAVE}


def require_writable(
    parser: argparse.ArgumentParser, file: Path | None, endings: Collection[str] | None = None
) -> None:
    """That a file can be written, said before hours of work and not after them.

    Args:
        file: None: nothing is to be written.
        endings: those that its name may have, where they decide on the format. None: any.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        parser.error(f"{file}: there is no folder {file.parent}")
    if file.is_dir():
        parser.error(f"{file} is a folder; give the name of a file")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        parser.error(f"{file}: no permission to write it")
    if endings is not None and file.suffix.lower() not in endings:
        parser.error(f"{file}: give a name that ends as a picture's does, such as {file}.png")
