"""A font for the labels of images, in whatever script a prompt is written."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Where Linux systems keep fonts.
_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_SUFFIXES = (".ttf", ".otf", ".ttc")
#: A character that no font has.
_NONE = "\uffff"


def font_for(text: str, size: int) -> Any | None:
    """Pillow's own font; where that lacks a character, the first one of the system that has them
    all; None: there is none.

    Args:
        size: in pixels.
    """
    return next((font for font in _fonts(size) if _has_all(font, text)), None)


@functools.cache
def _own(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fonts(size: int) -> Iterator[Any]:
    yield _own(size)
    for path in _files():
        font = _opened(path, size)
        if font is not None:
            yield font


@functools.cache
def _files() -> tuple[Path, ...]:
    """Plain ones first, then by name."""
    found = [
        path
        for folder in _FOLDERS
        for path in Path(folder).expanduser().rglob("*")
        if path.suffix.lower() in _SUFFIXES
    ]
    return tuple(sorted(found, key=lambda path: (_is_special(path.stem.lower()), path.name)))


def _is_special(name: str) -> bool:
    return any(word in name for word in ("bold", "italic", "oblique", "light", "math", "mono"))


@functools.cache
def _opened(path: Path, size: int) -> Any | None:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(str(path), size)
    except OSError:  # not a font that FreeType reads
        return None


def _has_all(font: Any, text: str) -> bool:
    """Whether a font has a glyph for each character: others are drawn as the one for none."""
    nothing = bytes(font.getmask(_NONE))
    return all(
        character.isspace() or bytes(font.getmask(character)) != nothing for character in set(text)
    )
