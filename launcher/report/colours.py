"""Which colour and which stroke a run or a line has, by its number."""

from __future__ import annotations

from launcher.report.html import Markup, join, tag

#: Colours there are, `c0` and so on in style.css; and strokes, of which the second and third are
#: for those that come after the colours are used up.
_COLOURS, _STROKES = 8, 3


def classes(number: int) -> str:
    """The classes of style.css for a line of that number."""
    return f"c{number % _COLOURS} s{number // _COLOURS % _STROKES}"


def key(label: str, number: int) -> Markup:
    """A label behind a piece of its line."""
    return join([tag("i", class_=classes(number)), label])
