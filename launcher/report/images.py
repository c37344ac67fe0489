"""Images of a run, small enough to be part of a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Budget:
    """What the images of a page may take.

    Attributes:
        side: length of the longer side in pixels, at most.
        size: of all of them together in bytes, as JPEG; base64 makes 4 bytes of 3.
    """

    side: int
    size: int


#: For images that are looked at closely, and for the others. Together 2 MB of a page.
LARGE, SMALL = Budget(1600, 900_000), Budget(320, 600_000)

#: No side is made shorter, in pixels.
_SMALLEST = 48
#: JPEG takes about so many bytes a pixel at this quality, if not more: measured are 0.1 for smooth
#: images and 0.6 for noise.
_QUALITY, _BYTES_A_PIXEL = 82, 0.1


def encode(paths: Iterable[Path], budget: Budget) -> dict[Path, str]:
    """Images as `data:` addresses.

    Args:
        paths: PNG, JPEG, WebP. One that cannot be read, such as one that is being written, is
            left out.
        budget: what they may take.

    Returns:
        Address by path.
    """
    chosen = list(dict.fromkeys(paths))
    if not chosen:
        return {}
    side = min(budget.side, int(math.sqrt(budget.size / (_BYTES_A_PIXEL * len(chosen)))))
    while True:
        side = max(side, _SMALLEST)
        encoded = {p: data for p in chosen if (data := _jpeg(p, side)) is not None}
        size = sum(map(len, encoded.values()))
        if size <= budget.size or side == _SMALLEST:
            break
        # Where they are smaller than the side, a shorter one may change nothing at first.
        side = int(side * math.sqrt(budget.size / size) * 0.95)
    return {
        path: "data:image/jpeg;base64," + base64.b64encode(data).decode()
        for path, data in encoded.items()
    }


def _jpeg(path: Path, side: int) -> bytes | None:
    try:
        with Image.open(path) as image:
            image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            if image.mode in ("RGBA", "LA", "PA", "P"):
                # What is transparent is white, as on paper.
                image = image.convert("RGBA")
                paper = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(paper, image)
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, optimize=True)
            return buffer.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # What Pillow raises for a file that is damaged, cut short, or no image at all.
        return None
