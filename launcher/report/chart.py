"""Charts of lines, as SVG that takes the width it is given.

The SVG holds the lines alone and is stretched to its place; strokes and letters are not, since the
letters are HTML beside it. So a chart is as readable on a phone as on a wide screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from launcher.report import formats
from launcher.report.axes import Axis, of_steps, of_values
from launcher.report.downsample import extremes, smoothed, summaries, window
from launcher.report.html import Child, Markup, data_block, join, tag

#: Of the drawing's own units, which are no pixels.
_WIDTH, _HEIGHT = 4000, 1000
#: A wide chart has about so many pixels.
_BUCKETS = 560
#: Places that the pointer can be told of.
_SPOTS = 240
#: Colours there are, `--c0` and so on in style.css; and kinds of strokes.
_COLOURS, _STROKES = 8, 3


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: what it is called.
        x, y: (N,) steps, rising, and values. Those that are not finite are marked at the lower end.
        colour: number of a colour.
        stroke: 0 drawn through, 1 dashed, 2 dotted.
        smooth: draw a mean over it, if it is long.
        dots: mark each point, if there are few.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    stroke: int = 0
    smooth: bool = False
    dots: bool = False

    @property
    def window(self) -> int:
        """Over how many values it is smoothed; 1: it is not."""
        return window(len(self.y)) if self.smooth else 1

    @property
    def classes(self) -> str:
        """Its place in style.css."""
        stroke = (self.stroke + self.colour // _COLOURS) % _STROKES
        return f"c{self.colour % _COLOURS} s{stroke}"


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: its heading.
        lines: those that have a value at all are drawn.
        unit: of `launcher.report.formats`.
        note: a sentence below the title.
        from_zero: the axis begins at zero where that is possible.
        may_be_log: the axis may be logarithmic.
        wide: it takes the width of the page.
    """

    title: str
    lines: Sequence[Line]
    unit: str = formats.NUMBER
    note: str = ""
    from_zero: bool = False
    may_be_log: bool = True
    wide: bool = False


def draw(chart: Chart, number: int) -> Markup | None:
    """A figure; None if there is not one line in the chart.

    Args:
        number: of the chart on its page.
    """
    lines = [line for line in chart.lines if len(line.x)]
    if not lines:
        return None
    finite = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    across = of_steps(min(line.x[0] for line in lines), max(line.x[-1] for line in lines))
    if not len(finite):
        return _figure(chart, [tag("p", "None of the values is a finite number.", class_="note")])
    up = of_values(finite, chart.unit, from_zero=chart.from_zero, may_be_log=chart.may_be_log)
    described = _description(chart, lines)
    svg = tag(
        "svg",
        tag("title", chart.title, id=f"t{number}"),
        tag("desc", described, id=f"d{number}"),
        _grid(across, up),
        # The noise of all lines first: it must hide no line.
        [_noise(line, across, up) for line in lines if line.window > 1],
        [_drawn(line, across, up) for line in lines],
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"t{number} d{number}",
    )
    plot = tag(
        "div",
        tag("div", _labels(up, "bottom"), class_="y", aria_hidden="true"),
        tag("div", svg, class_="area"),
        tag("div", _labels(across, "left"), class_="x", aria_hidden="true"),
        class_="plot",
    )
    return _figure(
        chart,
        [_legend(lines), plot, tag("output", class_="read"), _data(chart, lines, across)],
        "log scale" if up.is_log else "",
    )


def _figure(chart: Chart, content: Iterable[Child], scale: str = "") -> Markup:
    caption = tag(
        "figcaption",
        tag("b", chart.title),
        tag("span", scale, class_="scale") if scale else None,
        tag("span", chart.note, class_="note") if chart.note else None,
    )
    return tag("figure", caption, content, class_="chart wide" if chart.wide else "chart")


def _description(chart: Chart, lines: Sequence[Line]) -> str:
    """The chart in words."""
    write = formats.WRITERS[chart.unit]
    said = []
    for line in lines:
        known = np.isfinite(line.y)
        if not known.any():
            said.append(f"{line.label}: no finite value.")
            continue
        x, y = line.x[known], line.y[known]
        low, high = int(y.argmin()), int(y.argmax())
        said.append(
            f"{line.label}: {write(float(y[0]))} at step {x[0]:,.0f}, {write(float(y[-1]))} at "
            f"step {x[-1]:,.0f}; lowest {write(float(y[low]))} at step {x[low]:,.0f}, highest "
            f"{write(float(y[high]))} at step {x[high]:,.0f}."
        )
    return " ".join(said)


def _legend(lines: Sequence[Line]) -> Markup | None:
    entries = []
    for line in lines:
        name, mean = line.label, f"mean of {line.window} steps" if line.window > 1 else ""
        lost = int((~np.isfinite(line.y)).sum())
        if len(lines) == 1:
            # The title says what the line is.
            if not mean and not lost:
                return None
            name, mean = mean or "each step", ""
        entries.append(
            tag(
                "li",
                tag("i", class_=line.classes),
                f"{name}, {mean}" if mean else name,
                tag("span", f" ({lost:,} not finite, marked below)", class_="bad")
                if lost
                else None,
            )
        )
    return tag("ul", entries, class_="legend")


def _grid(across: Axis, up: Axis) -> Markup:
    places = (_HEIGHT * (1 - up.place(np.array(up.ticks)))).round().astype(int)
    down = (_WIDTH * across.place(np.array(across.ticks))).round().astype(int)
    path = "".join(f"M0 {y}h{_WIDTH}" for y in places) + "".join(f"M{x} 0v{_HEIGHT}" for x in down)
    return tag("path", d=path, class_="grid")


def _labels(axis: Axis, side: str) -> list[Markup]:
    places = axis.place(np.array(axis.ticks))
    return [
        tag("span", label, style=f"{side}:{100 * place:.2f}%", class_=_edge(place))
        for place, label in zip(places, axis.labels)
    ]


def _edge(place: float) -> str | None:
    """A label at an end of the axis is shifted into the chart."""
    return "first" if place < 0.04 else "last" if place > 0.96 else None


def _noise(line: Line, across: Axis, up: Axis) -> Markup:
    """Each step, behind the mean."""
    pieces = extremes(line.x, line.y, _BUCKETS, across.low, across.high)
    path = "".join(_path(across.place(x), up.place(y)) for x, y in pieces)
    return tag("path", d=path, class_=f"{line.classes} raw")


def _drawn(line: Line, across: Axis, up: Axis) -> Markup:
    if line.window > 1:
        pieces = smoothed(line.x, line.y, line.window, _BUCKETS // 2)
    else:
        pieces = extremes(line.x, line.y, _BUCKETS, across.low, across.high)
    path = "".join(_path(across.place(x), up.place(y)) for x, y in pieces)
    drawn = [tag("path", d=path, class_=f"{line.classes} line")]
    if line.dots and len(line.x) <= 60:
        dots = "".join(
            _path(across.place(x[i : i + 1]), up.place(y[i : i + 1]))
            for x, y in pieces
            for i in range(len(x))
        )
        drawn.append(tag("path", d=dots, class_=f"{line.classes} dot"))
    lost = np.unique((_WIDTH * across.place(line.x[~np.isfinite(line.y)])).round(-1).astype(int))
    if len(lost):
        marks = "".join(f"M{x} {_HEIGHT}v-{_HEIGHT // 20}" for x in lost)
        drawn.append(tag("path", d=marks, class_="lost"))
    return join(drawn)


def _path(across: np.ndarray, up: np.ndarray) -> str:
    """Points as a path, in whole units and relative to each other, which is short. A single point
    is a line without length: its round ends make a dot."""
    x = (_WIDTH * across).round().astype(np.int64)
    y = (_HEIGHT * (1 - up)).round().astype(np.int64)
    start = f"M{x[0]} {y[0]}"
    if len(x) == 1:
        return f"{start}h0"
    return start + "l" + " ".join(f"{dx} {dy}" for dx, dy in zip(np.diff(x), np.diff(y)))


def _data(chart: Chart, lines: Sequence[Line], across: Axis) -> Markup:
    """The figures that the pointer is told: in each of some hundred places the mean, and from
    where to where the values go."""
    low, high = across.low, across.high
    return data_block(
        {
            "unit": chart.unit,
            "low": low,
            "high": high,
            "lines": [
                {
                    "label": line.label,
                    "colour": line.classes,
                    "spots": [
                        [int(a), int(b), *(float(f"{v:.5g}") for v in values)]
                        for a, b, *values in summaries(line.x, line.y, _SPOTS, low, high)
                    ],
                }
                for line in lines
            ],
        }
    )
