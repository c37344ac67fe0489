"""Draw coloured shapes on coloured backgrounds, with control images and captions.

    python examples/quickstart/shapes.py FOLDER --samples 1000
    python examples/quickstart/shapes.py FILE.parquet --samples 1000

A sample is a picture, a control image of the same shape, and a caption such as "red circle on a
striped blue background". The caption tells neither place nor size: these can only be learned from
the control image. The recipes take both forms: `data.dataset_name=FOLDER`, or the folder that holds
the Parquet file, and `data.conditioning_image_column=conditioning_image`. The first loads with
`datasets.load_dataset("imagefolder", data_dir=FOLDER)`, too.

Equal arguments give equal pixels on every machine: positions and colours come from Python's
Mersenne Twister, the drawing from formulas.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

#: The names in captions, and sRGB values. Any two are at least 95 apart in one of the channels.
COLOURS = {
    "red": (215, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 70, 215),
    "yellow": (240, 210, 50),
    "purple": (140, 45, 165),
    "cyan": (75, 215, 235),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
#: What the base model of the quickstart was taught. `SHAPES` knows more.
KNOWN_SHAPES = ("circle", "square", "triangle")
SHAPES = (*KNOWN_SHAPES, "cross")
TEXTURES = ("plain", "striped", "checkered")
CONDITIONS = ("outline", "mask", "depth")

#: Half of the difference between the two tones of a texture, and the side of its tiles in pixels.
TEXTURE_CONTRAST = 14
TILE = 4


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Lengths are in units of the picture's side.

    Attributes:
        shape, colour: one of `SHAPES`, one of `COLOURS`.
        texture, ground: one of `TEXTURES`; the background's colour.
        x, y: the shape's centre, from the left and from the top.
        radius: the size; shapes of one radius are about as large.
    """

    shape: str
    colour: str
    texture: str
    ground: str
    x: float
    y: float
    radius: float

    @property
    def caption(self) -> str:
        texture = "" if self.texture == "plain" else f"{self.texture} "
        return f"{self.colour} {self.shape} on a {texture}{self.ground} background"


def draw_scene(index: int, seed: int = 0, shapes: Sequence[str] = KNOWN_SHAPES) -> Scene:
    """Scene number `index`: everything drawn evenly, half of the backgrounds plain."""
    draw = random.Random(f"{seed}/{index}")

    def choose(names: Sequence[str]) -> str:
        return names[int(draw.random() * len(names))]

    shape, colour = choose(shapes), choose(list(COLOURS))
    ground = choose([name for name in COLOURS if name != colour])
    texture = choose(("plain", "plain", "striped", "checkered"))
    radius = 0.15 + 0.14 * draw.random()
    margin = 1.2 * radius + 0.06  # some background is left at every edge
    x, y = (margin + (1 - 2 * margin) * draw.random() for _ in range(2))
    return Scene(shape, colour, texture, ground, x, y, radius)


def depth_inside(scene: Scene, size: int) -> np.ndarray:
    """float64 `[size, size]`: distance in pixels of each pixel to the shape's edge, negative
    outside. Outside of corners it is that to the edges' lines, less than the true one."""
    centres = np.arange(size) + 0.5
    x, y = centres[None, :] - scene.x * size, centres[:, None] - scene.y * size
    return _DEPTHS[scene.shape](x, y, scene.radius * size)


def _circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return radius - np.hypot(x, y)


def _square(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return 0.9 * radius - np.maximum(np.abs(x), np.abs(y))


def _triangle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Equilateral, on its base; its bounding box is centred."""
    side = 2.4 * radius
    height = side * math.sqrt(3) / 2
    slope = (y + height / 2) / 2 - np.abs(x) * math.sqrt(3) / 2  # below either slanting edge
    return np.minimum(height / 2 - y, slope)


def _cross(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    long, wide = 1.1 * radius, 0.42 * radius
    upright = np.minimum(wide - np.abs(x), long - np.abs(y))
    return np.maximum(upright, np.minimum(long - np.abs(x), wide - np.abs(y)))


_DEPTHS = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}


def mask_of(scene: Scene, size: int) -> np.ndarray:
    """bool `[size, size]`: where the shape is."""
    return depth_inside(scene, size) > 0


def picture_of(scene: Scene, size: int) -> np.ndarray:
    """uint8 `[size, size, 3]`: the scene itself, edges smooth over a pixel."""
    row, column = np.indices((size, size)) // TILE
    tiles = {
        "plain": np.zeros((size, size)),
        "striped": row % 2 * 2 - 1,
        "checkered": (row + column) % 2 * 2 - 1,
    }[scene.texture]
    # White has no room for a lighter tone, and black none for a darker one.
    ground = np.clip(COLOURS[scene.ground], TEXTURE_CONTRAST, 255 - TEXTURE_CONTRAST)
    background = ground + TEXTURE_CONTRAST * tiles[..., None]
    inside = np.clip(depth_inside(scene, size) + 0.5, 0.0, 1.0)[..., None]
    return _pixels(inside * COLOURS[scene.colour] + (1.0 - inside) * background)


def condition_of(scene: Scene, size: int, condition: str) -> np.ndarray:
    """uint8 `[size, size, 3]`: the control image.

    Args:
        condition: `outline`: the edge in white, 3 pixels wide; `mask`: the shape in white;
            `depth`: brighter from the edge inwards, as if the shape were a hill. All on black.
    """
    depth = depth_inside(scene, size)
    if condition == "outline":
        white = np.clip(2.0 - np.abs(depth), 0.0, 1.0)
    else:
        white = np.clip(depth + 0.5, 0.0, 1.0)
    if condition == "depth":
        white = white * (0.3 + 0.7 * np.clip(depth / depth.max(), 0.0, 1.0))
    return _pixels(np.repeat(255.0 * white[..., None], 3, axis=2))


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.uint8)


def draw_samples(
    samples: int, size: int, seed: int, condition: str, shapes: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Picture, control image and caption of each; the arguments are those of `make_data`."""
    for index in range(samples):
        scene = draw_scene(index, seed, shapes)
        kind = CONDITIONS[index % len(CONDITIONS)] if condition == "mixed" else condition
        yield picture_of(scene, size), condition_of(scene, size, kind), scene.caption


def make_data(
    target: Path,
    samples: int,
    *,
    size: int = 64,
    seed: int = 0,
    condition: str = "outline",
    shapes: Sequence[str] = KNOWN_SHAPES,
) -> None:
    """Write `samples` samples.

    Args:
        target: a folder, for images and metadata.jsonl; or a file that ends in `.parquet`.
        size: side of the images in pixels.
        condition: one of `CONDITIONS`, or `mixed`: one after the other.
    """
    drawn = draw_samples(samples, size, seed, condition, shapes)
    if target.suffix == ".parquet":
        _write_parquet(target, drawn)
    else:
        _write_folder(target, drawn)


def _write_folder(folder: Path, drawn: Iterable[tuple[np.ndarray, np.ndarray, str]]) -> None:
    """The metadata last: without them, nothing is taken for a data set that was only begun."""
    for name in ("images", "conditioning_images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (picture, control, caption) in enumerate(drawn):
        row = {
            "file_name": f"images/{index:05d}.png",
            "conditioning_image_file_name": f"conditioning_images/{index:05d}.png",
            "text": caption,
        }
        Image.fromarray(picture).save(folder / row["file_name"])
        Image.fromarray(control).save(folder / row["conditioning_image_file_name"])
        rows.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_parquet(path: Path, drawn: Iterable[tuple[np.ndarray, np.ndarray, str]]) -> None:
    import datasets

    def png(image: np.ndarray) -> dict[str, bytes]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png", optimize=True)
        return {"bytes": file.getvalue()}

    rows = [
        {"image": png(picture), "conditioning_image": png(control), "text": caption}
        for picture, control, caption in drawn
    ]
    features = datasets.Features(
        image=datasets.Image(), conditioning_image=datasets.Image(), text=datasets.Value("string")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")  # such a name is not read as data
    datasets.Dataset.from_list(rows, features).to_parquet(partial)
    partial.replace(path)


def main() -> None:
    """Read the command line and write the data."""
    parser = argparse.ArgumentParser(description="Draw coloured shapes, with control images.")
    parser.add_argument("target", type=Path, help="where to write: a folder, or FILE.parquet")
    parser.add_argument("--samples", type=int, default=1000, help="default: 1000")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--condition",
        choices=(*CONDITIONS, "mixed"),
        default="outline",
        help="what the control images show (default: outline)",
    )
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=KNOWN_SHAPES, help="which shapes to draw"
    )
    options = parser.parse_args()
    if options.samples < 1:
        parser.error("--samples: at least 1")
    if options.size < 16:
        parser.error("--size: at least 16")
    target = options.target
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        parser.error(f"{target} is there already; give a new name, or remove it")
    make_data(
        options.target,
        options.samples,
        size=options.size,
        seed=options.seed,
        condition=options.condition,
        shapes=options.shapes,
    )
    print(f"{options.samples} samples in {options.target}")


if __name__ == "__main__":
    main()
