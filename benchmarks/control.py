"""Whether a ControlNet controls: `python benchmarks/control.py RUN`.

For pictures of shapes (examples/quickstart/shapes.py). Scenes that are in none of the quickstart's
data are sampled with the run's ControlNet, each from its caption and its control image, at several
conditioning scales, and with the control image of another scene. Every picture is scored
(shape_scores.py):

- *IoU*: how well the shape that was drawn covers the one in the control image. For another scene's
  control image, that one's.
- *colours*: the share of pictures whose shape and background have the colours of the caption.
- *shape*: the share of pictures with the caption's shape; *both*: that with colours and shape
  right. With another scene's control image, caption and control may disagree, and these are left
  out. The texture of backgrounds is not scored.

"No control" is the base model alone; "the VAE alone" are the scenes themselves, encoded and
decoded: more cannot be reached. The base model is the one that the run was trained with, or --base;
without RUN, it alone is scored. --lora RUN scores it once more with adapters, and --shapes cross
asks for shapes that it may not know. Prints a table; --grid FILE writes some of the pictures beside
each other, --json FILE the scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampler import TOKENS, Sampler, base_of, find, script, size_of
from benchmarks.scoring import (
    SEED,
    TRAINED_ON,
    Scores,
    add_common,
    check_common,
    heading,
    held_out,
    picture_endings,
    require_writable,
    row,
    score,
)
from benchmarks.shape_scores import Scene, shapes

GRID = 5  # scenes in the picture
SCALES = (0.5, 0.7, 1.0)


@dataclass(frozen=True)
class Sampled:
    """Pictures of one kind, a scene each.

    Attributes:
        name: of the kind.
        pictures: uint8 `[N, H, W, 3]`.
        controls: the control images that they were made with, uint8 `[H, W, 3]` each.
        scores: of the pictures.
    """

    name: str
    pictures: np.ndarray
    controls: Sequence[np.ndarray]
    scores: Scores


def main() -> None:
    options = read_arguments()
    run = options.run and find(options.run)
    adapters = options.lora and find(options.lora, lora=True)
    known = run or adapters
    base = base_of(known, options.base)
    settings = dict(steps=options.steps, tokens=known.tokens if known else TOKENS)
    size = size_of(known, options.size)
    scenes, controls = held_out(
        options.samples, size, options.condition, options.shapes, options.seed
    )
    print(f"{len(scenes)} scenes, {size} x {size}, {options.condition}, {options.steps} steps")
    print(heading(""))
    sampler = Sampler(base, run and run.weights, **settings)
    scales = [] if run is None else options.scales or SCALES
    sampled = measure(sampler, scenes, controls, scales)
    if adapters is not None:
        adapted = Sampler(base, lora=adapters.weights, **settings)
        embeddings = adapted.encode([scene.caption for scene in scenes])
        pictures = adapted.sample(embeddings, controls, 0.0)
        sampled.append(said("with the adapters", pictures, controls, scenes, scenes))
    if options.json is not None:
        content = {
            "trained": str(options.run or options.lora or ""),
            "base": str(base),
            "samples": len(scenes),
            "seed": options.seed,
            "shapes": list(options.shapes),
            "size": size,
            "condition": options.condition,
            "steps": options.steps,
            "scores": {kind.name: vars(kind.scores) for kind in sampled},
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.grid is not None:
        write_grid(options.grid, scenes, sampled)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path, help="a run, a checkpoint, or a ControlNet")
    parser.add_argument("--lora", type=Path, help="adapters in the place of RUN: a file, or a run")
    parser.add_argument("--shapes", nargs="+", choices=shapes.SHAPES, default=shapes.KNOWN_SHAPES,
        help="what to ask for (what the base model of the quickstart knows)")  # fmt: skip
    add_common(parser)
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the scenes ({SEED})")
    parser.add_argument("--scales", type=float, nargs="+", help="conditioning scales (0.5 0.7 1)")
    parser.add_argument("--grid", type=Path, help="write this picture")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    options = parser.parse_args()
    if options.run is not None and options.lora is not None:
        parser.error("RUN and --lora: one of them")
    if options.scales is not None and options.run is None:
        parser.error("--scales: without RUN there is no ControlNet to scale")
    check_common(parser, options)
    if options.seed in TRAINED_ON:
        parser.error(f"--seed: {TRAINED_ON[options.seed]} have {options.seed}; take another")
    require_writable(parser, options.grid, picture_endings())
    require_writable(parser, options.json)
    return options


def measure(
    sampler: Any, scenes: Sequence[Scene], controls: Sequence[np.ndarray], scales: Sequence[float]
) -> list[Sampled]:
    """Sample and score; a line for each kind of pictures is printed at once.

    Args:
        sampler: see `benchmarks.sampler.Sampler`.
        scenes, controls: from `held_out`.
        scales: of the ControlNet. Empty: there is none.

    Returns:
        The kinds in the order of the table's rows.
    """
    size = controls[0].shape[0]
    drawn = [shapes.picture_of(scene, size) for scene in scenes]
    embeddings = sampler.encode([scene.caption for scene in scenes])
    alone = sampler.sample(embeddings, controls, 0.0)
    found = [
        said("the VAE alone", sampler.through_vae(drawn), controls, scenes, scenes),
        said("no control", alone, controls, scenes, scenes),
    ]
    for scale in scales:
        pictures = sampler.sample(embeddings, controls, scale)
        found.append(said(f"scale {scale:g}", pictures, controls, scenes, scenes))
    if scales:
        other = [*range(1, len(scenes)), 0]
        moved, theirs = [scenes[i] for i in other], [controls[i] for i in other]
        pictures = sampler.sample(embeddings, theirs, 1.0)
        found.append(said("another's control", pictures, theirs, scenes, moved))
    return found


def said(
    name: str,
    pictures: np.ndarray,
    controls: Sequence[np.ndarray],
    scenes: Sequence[Scene],
    controlled: Sequence[Scene],
) -> Sampled:
    """Score pictures, and print the line."""
    scores = score(pictures, scenes, controlled)
    print(row(name, scores), flush=True)
    return Sampled(name, pictures, controls, scores)


def write_grid(path: Path, scenes: Sequence[Scene], sampled: Sequence[Sampled]) -> None:
    """A row for each of the first scenes: the control image, where some were made with it, then a
    picture of each kind; before those with another control image, that one."""
    from PIL import Image

    from launcher.training.grid import Row, lay_out

    controls = sampled[0].controls
    columns: list[tuple[str, Sequence[np.ndarray]]] = []
    if any(kind.controls is not controls for kind in sampled):  # else no ControlNet was there
        columns.append(("control", controls))
    for kind in sampled:
        if kind.controls is not controls:
            columns += [("another control", kind.controls), ("with that", kind.pictures)]
        else:
            columns.append((kind.name, kind.pictures))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for number, scene in enumerate(scenes[:GRID]):
            files = [Path(folder) / f"{number}-{column}.png" for column in range(len(columns))]
            for file, (_, images) in zip(files, columns):
                Image.fromarray(images[number]).save(file)
            rows.append(Row(scene.caption, files))
        lay_out([name for name, _ in columns], rows).save(path)


if __name__ == "__main__":
    script(main)
