"""Images of a run, small enough to be part of a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

#: Sides in pixels, between which the images of a page are brought to `_BYTES` together.
_LARGEST, _SMALLEST = 320, 48
_BYTES = 1_500_000
#: JPEG takes about so many bytes a pixel at this quality: measured are 0.1 for smooth images and
#: 0.6 for noise.
_QUALITY, _BYTES_A_PIXEL = 82, 0.3


def encode(paths: Iterable[Path], largest: int = _LARGEST) -> dict[Path, str]:
    """Images as `data:` addresses, all together in about 2 MB (base64 makes 4 bytes of 3).

    Args:
        paths: PNG, JPEG, WebP. One that cannot be read, such as one that is being written, is
            left out.
        largest: length of the longer side in pixels, at most.

    Returns:
        Address by path.
    """
    chosen = list(dict.fromkeys(paths))
    if not chosen:
        return {}
    side = min(largest, int(math.sqrt(_BYTES / (_BYTES_A_PIXEL * len(chosen)))))
    while True:
        side = max(side, _SMALLEST)
        encoded = {p: data for p in chosen if (data := _jpeg(p, side)) is not None}
        size = sum(map(len, encoded.values()))
        if size <= _BYTES or side == _SMALLEST:
            break
        side = int(side * math.sqrt(_BYTES / size) * 0.95)
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
