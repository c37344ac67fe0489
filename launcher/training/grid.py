"""Images side by side, with labels, as one image.

grid = lay_out(["control", "step 100"], [Row("a red disc", [control, image])])
grid.save("grid.png")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

#: Longest side of an image in the grid, in pixels; small ones are enlarged to half of it.
SIDE = 256
_GAP, _TEXT = 8, 14
_LINE = _TEXT + _GAP
_PAPER, _INK, _EMPTY = "white", "black", "#dddddd"


@dataclass(frozen=True)
class Row:
    """A label, and files of images; None: there is none, and its place stays empty. So does that of
    one that cannot be read."""

    label: str
    images: Sequence[Path | None]


def lay_out(columns: Sequence[str], rows: Sequence[Row], side: int = SIDE) -> Image.Image:
    """Draw a grid: labels of columns at the top, the label of a row above its images.

    Args:
        columns: labels.
        rows: at least one, each of as many images as there are columns; their sizes may differ.
        side: see `SIDE`.
    """
    from PIL import Image, ImageDraw

    from launcher.training.fonts import font_for

    pictures = [[_scaled(path, side) for path in row.images] for row in rows]
    there = [picture for row in pictures for picture in row if picture is not None]
    cell_width = max([side // 2, *(picture.width for picture in there)])
    heights = [max([_LINE, *(p.height for p in row if p is not None)]) for row in pictures]
    width = _GAP + len(columns) * (cell_width + _GAP)
    height = _GAP + _LINE + sum(_LINE + h + _GAP for h in heights)
    grid = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(grid)

    def write(text: str, x: int, y: int, room: int) -> None:
        text = " ".join(text.split())
        font = font_for(text, _TEXT)
        if font is None:
            text = "(no font of this system has the characters of this label)"
            font = font_for(text, _TEXT)
        draw.text((x, y), _cut(text, lambda part: draw.textlength(part, font) <= room), _INK, font)

    lefts = [_GAP + number * (cell_width + _GAP) for number in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        write(column, left, _GAP, cell_width)
    top = _GAP + _LINE
    for row, cells, row_height in zip(rows, pictures, heights, strict=True):
        write(row.label, _GAP, top, width - 2 * _GAP)
        top += _LINE
        for left, cell in zip(lefts, cells, strict=True):
            if cell is None:
                draw.rectangle((left, top, left + cell_width - 1, top + row_height - 1), _EMPTY)
            else:
                grid.paste(cell, (left, top))
                # A frame, for images that are as white as the paper.
                box = (left - 1, top - 1, left + cell.width, top + cell.height)
                draw.rectangle(box, outline=_EMPTY)
        top += row_height + _GAP
    return grid


def _cut(text: str, fits: Callable[[str], bool]) -> str:
    """As much of a text as there is room for, with an ellipsis where something is left out."""
    if fits(text):
        return text
    kept, too_long = 0, len(text)
    while too_long - kept > 1:
        middle = (kept + too_long) // 2
        if fits(text[:middle].rstrip() + "..."):
            kept = middle
        else:
            too_long = middle
    return text[:kept].rstrip() + "..."


def spread(values: Sequence[int], count: int) -> list[int]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _scaled(path: Path | None, side: int) -> Image.Image | None:
    from PIL import Image

    if path is None:
        return None
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:  # damaged, or removed meanwhile
        return None
    longest = max(picture.size)
    if longest > side:
        factor, how = side / longest, Image.Resampling.LANCZOS
    elif 2 * longest <= side:
        factor, how = side // 2 // longest, Image.Resampling.NEAREST
    else:
        return picture
    return picture.resize([max(1, round(factor * length)) for length in picture.size], how)
