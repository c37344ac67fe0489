"""Write tests/data/circles: circles to be filled, in the style of fill50k.

    python tests/data/make_circles.py [FOLDER]

Each of the 64 samples is a picture (a filled circle of one colour on a ground of another), a
condition (the circle's white outline on black) and a caption that names both colours: the
outline says where, the caption says which colours. The folder also loads as it is with
`datasets.load_dataset("imagefolder", data_dir=FOLDER)`.

Equal arguments give equal pixels on every machine: positions and colours come from Python's
Mersenne Twister, the drawing from a formula.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

#: Colour names as fill50k uses them, with their CSS values.
COLOURS = {
    "black": (0, 0, 0),
    "blue violet": (138, 43, 226),
    "cadet blue": (95, 158, 160),
    "chocolate": (210, 105, 30),
    "cornflower blue": (100, 149, 237),
    "crimson": (220, 20, 60),
    "dark olive green": (85, 107, 47),
    "dark slate gray": (47, 79, 79),
    "deep sky blue": (0, 191, 255),
    "forest green": (34, 139, 34),
    "golden rod": (218, 165, 32),
    "hot pink": (255, 105, 180),
    "indian red": (205, 92, 92),
    "lavender": (230, 230, 250),
    "light coral": (240, 128, 128),
    "light sea green": (32, 178, 170),
    "lime green": (50, 205, 50),
    "medium orchid": (186, 85, 211),
    "midnight blue": (25, 25, 112),
    "old lace": (253, 245, 230),
    "orange red": (255, 69, 0),
    "pale golden rod": (238, 232, 170),
    "saddle brown": (139, 69, 19),
    "steel blue": (70, 130, 180),
}
#: Circle and ground differ by at least this much in one channel, so that the circle shows.
CONTRAST = 100


def make_sample(index: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray, str]:
    """Draw sample `index`: picture and condition, uint8 `[size, size, 3]`, and caption."""
    draw = random.Random(f"{seed}/{index}")
    names = list(COLOURS)
    circle = names[int(draw.random() * len(names))]
    grounds = [name for name in names if _contrast(name, circle) >= CONTRAST]
    ground = grounds[int(draw.random() * len(grounds))]
    radius = size * (0.14 + 0.22 * draw.random())
    margin = radius + size * 0.05
    x, y = (margin + (size - 2 * margin) * draw.random() for _ in range(2))

    centres = np.arange(size) + 0.5
    distance = np.hypot(centres[None, :] - x, centres[:, None] - y)
    inside = np.clip(radius - distance + 0.5, 0.0, 1.0)[..., None]
    outline = np.clip(1.5 - np.abs(distance - radius), 0.0, 1.0)[..., None]  # two pixels wide
    picture = inside * COLOURS[circle] + (1.0 - inside) * COLOURS[ground]
    condition = outline * (255, 255, 255)
    caption = f"{circle} circle with {ground} background"
    return np.rint(picture).astype(np.uint8), np.rint(condition).astype(np.uint8), caption


def make_data(folder: Path, samples: int = 64, size: int = 64, seed: int = 0) -> None:
    """Write `samples` samples and their metadata.jsonl into `folder`."""
    for name in ("images", "conditioning_images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(samples):
        picture, condition, caption = make_sample(index, size, seed)
        row = {
            "file_name": f"images/{index:02d}.png",
            "conditioning_image_file_name": f"conditioning_images/{index:02d}.png",
            "text": caption,
        }
        Image.fromarray(picture).save(folder / row["file_name"], optimize=True)
        Image.fromarray(condition).save(folder / row["conditioning_image_file_name"], optimize=True)
        rows.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _contrast(one: str, other: str) -> int:
    return max(abs(a - b) for a, b in zip(COLOURS[one], COLOURS[other]))


def main() -> None:
    """Read the command line and write the data."""
    parser = argparse.ArgumentParser(description="Write circles to be filled, like fill50k.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(__file__).parent / "circles",
        help="where to write (default: the data folder beside this script)",
    )
    parser.add_argument("--samples", type=int, default=64, help="default: 64")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    arguments = parser.parse_args()
    make_data(arguments.folder, arguments.samples, arguments.size, arguments.seed)
    print(f"{arguments.samples} samples in {arguments.folder}")


if __name__ == "__main__":
    main()
