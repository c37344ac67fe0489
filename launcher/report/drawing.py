"""The lines of a chart as paths of an SVG that is stretched to its place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from launcher.report import colours
from launcher.report.axes import Axis
from launcher.report.downsample import extremes, smoothed
from launcher.report.html import Markup, join, tag

#: Of the drawing's own units, which are no pixels.
WIDTH, HEIGHT = 4000, 1000
#: A wide chart has about so many pixels.
_BUCKETS = 560


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: what it is called.
        x, y: (N,) steps, rising, and values. Those that are not finite are marked at the lower end.
        colour: its number, of `launcher.report.colours`.
        dots: mark each point, if there are few.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    dots: bool = False

    @property
    def classes(self) -> str:
        """Its place in style.css."""
        return colours.classes(self.colour)


@dataclass(frozen=True)
class Mark:
    """A step at which a run was continued.

    Attributes:
        step: the last one that was done before.
        colour: number of the run's colour; None: there is only one run.
    """

    step: float
    colour: int | None = None


def grid(across: Axis, up: Axis) -> Markup:
    """A line at each tick."""
    places = (HEIGHT * (1 - up.place(np.array(up.ticks)))).round().astype(int)
    down = (WIDTH * across.place(np.array(across.ticks))).round().astype(int)
    path = "".join(f"M0 {y}h{WIDTH}" for y in places) + "".join(f"M{x} 0v{HEIGHT}" for x in down)
    return tag("path", d=path, class_="grid")


def mark(found: Mark, across: Axis) -> Markup:
    """A line from the lower to the upper end."""
    x = round(WIDTH * float(across.place(np.array(found.step))))
    colour = "" if found.colour is None else f"{colours.classes(found.colour)} "
    return tag("path", d=f"M{x} 0v{HEIGHT}", class_=f"{colour}resume")


def noise(line: Line, across: Axis, up: Axis) -> Markup:
    """Each step, behind the mean."""
    pieces = extremes(line.x, line.y, _BUCKETS, across.low, across.high)
    path = "".join(_path(across.place(x), up.place(y)) for x, y in pieces)
    return tag("path", d=path, class_=f"{line.classes} raw")


def drawn(line: Line, window: int, across: Axis, up: Axis) -> Markup:
    """The line, and marks where a value is not finite.

    Args:
        window: over how many values it is smoothed; 1: it is not.
    """
    if window > 1:
        pieces = smoothed(line.x, line.y, window, _BUCKETS // 2)
    else:
        pieces = extremes(line.x, line.y, _BUCKETS, across.low, across.high)
    path = "".join(_path(across.place(x), up.place(y)) for x, y in pieces)
    found = [tag("path", d=path, class_=f"{line.classes} line")]
    if line.dots and len(line.x) <= 60:
        dots = "".join(
            _path(across.place(x[i : i + 1]), up.place(y[i : i + 1]))
            for x, y in pieces
            for i in range(len(x))
        )
        found.append(tag("path", d=dots, class_=f"{line.classes} dot"))
    lost = np.unique((WIDTH * across.place(line.x[~np.isfinite(line.y)])).round(-1).astype(int))
    if len(lost):
        marks = "".join(f"M{x} {HEIGHT}v-{HEIGHT // 20}" for x in lost)
        found.append(tag("path", d=marks, class_="lost"))
    return join(found)


def _path(across: np.ndarray, up: np.ndarray) -> str:
    """Points as a path, in whole units and relative to each other, which is short. A single point
    is a line without length: its round ends make a dot."""
    x = (WIDTH * across).round().astype(np.int64)
    y = (HEIGHT * (1 - up)).round().astype(np.int64)
    start = f"M{x[0]} {y[0]}"
    if len(x) == 1:
        return f"{start}h0"
    return start + "l" + " ".join(f"{dx} {dy}" for dx, dy in zip(np.diff(x), np.diff(y)))
