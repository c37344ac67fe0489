"""Charts of lines, as SVG that takes the width it is given.

The SVG holds the lines alone and is stretched to its place; strokes and letters are not, since the
letters are HTML beside it. So a chart is as readable on a phone as on a wide screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from launcher.report import drawing, formats
from launcher.report.axes import Axis, of_steps, of_values
from launcher.report.colours import key
from launcher.report.downsample import summaries, window
from launcher.report.drawing import HEIGHT, WIDTH, Line, Mark
from launcher.report.html import Child, Markup, data_block, tag

#: Places that the pointer can be told of.
_SPOTS = 240
#: Steps of marks are written beside them where they are so far apart, of the chart's width.
_APART = 0.12


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: its heading.
        lines: those that have a value at all are drawn.
        unit: of `launcher.report.formats`.
        note: a sentence below the title.
        smooth: draw means over the lines, if the longest is long.
        from_zero: the axis begins at zero where that is possible.
        may_be_log: the axis may be logarithmic.
        wide: it takes the width of the page.
    """

    title: str
    lines: Sequence[Line]
    unit: str = formats.NUMBER
    note: str = ""
    smooth: bool = False
    from_zero: bool = False
    may_be_log: bool = True
    wide: bool = False

    @property
    def window(self) -> int:
        """Over how many values a line is smoothed, all of them alike; 1: they are not."""
        return window(max(len(line.y) for line in self.lines)) if self.smooth else 1


def draw(chart: Chart, number: int, marks: Sequence[Mark] = ()) -> Markup | None:
    """A figure; None if there is not one line in the chart.

    Args:
        number: of the chart on its page.
        marks: in rising order.
    """
    lines = [line for line in chart.lines if len(line.x)]
    if not lines:
        return None
    finite = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    across = of_steps(min(line.x[0] for line in lines), max(line.x[-1] for line in lines))
    if not len(finite):
        return _figure(chart, [tag("p", "None of the values is a finite number.", class_="note")])
    up = of_values(finite, chart.unit, from_zero=chart.from_zero, may_be_log=chart.may_be_log)
    marks = [mark for mark in marks if across.low <= mark.step <= across.high]
    described = _description(chart, lines, marks)
    svg = tag(
        "svg",
        tag("title", chart.title, id=f"t{number}"),
        tag("desc", described, id=f"d{number}"),
        drawing.grid(across, up),
        [drawing.mark(mark, across) for mark in marks],
        # The noise of all lines first: it must hide no line.
        [drawing.noise(line, across, up) for line in lines if chart.window > 1],
        [drawing.drawn(line, chart.window, across, up) for line in lines],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"t{number} d{number}",
    )
    plot = tag(
        "div",
        tag("div", _labels(up, "bottom"), class_="y", aria_hidden="true"),
        tag("div", svg, _steps_of(marks, across), class_="area"),
        tag("div", _labels(across, "left"), class_="x", aria_hidden="true"),
        class_="plot",
    )
    return _figure(
        chart,
        [
            _legend(chart.window, lines),
            plot,
            tag("output", class_="read"),
            _data(chart, lines, across),
        ],
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


def _description(chart: Chart, lines: Sequence[Line], marks: Sequence[Mark]) -> str:
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
    said += [f"Continued after step {mark.step:,.0f}." for mark in marks]
    return " ".join(said)


def _legend(window: int, lines: Sequence[Line]) -> Markup | None:
    mean = f"mean of {window} steps" if window > 1 else ""
    entries = []
    for line in lines:
        lost = int((~np.isfinite(line.y)).sum())
        # Of a single line, the title says what it is.
        name = line.label if len(lines) > 1 else mean or ("each step" if lost else "")
        if not name:
            return None
        said = f" ({lost:,} not finite, marked below)"
        entries.append(
            tag("li", key(name, line.colour), tag("span", said, class_="bad") if lost else None)
        )
    if mean and len(lines) > 1:
        entries.append(tag("li", mean))
    return tag("ul", entries, class_="legend")


def _labels(axis: Axis, side: str) -> list[Markup]:
    places = axis.place(np.array(axis.ticks))
    return [
        tag("span", label, style=f"{side}:{100 * place:.2f}%", class_=_edge(place))
        for place, label in zip(places, axis.labels)
    ]


def _steps_of(marks: Sequence[Mark], across: Axis) -> list[Markup]:
    """The steps of marks, beside them."""
    labels: list[Markup] = []
    last = -1.0
    for mark in marks:
        place = float(across.place(np.array(mark.step)))
        if place - last >= _APART:
            side = f"right:{100 - 100 * place:.2f}%" if place > 0.5 else f"left:{100 * place:.2f}%"
            labels.append(
                tag("span", f"{mark.step:,.0f}", style=side, class_="resume", aria_hidden="true")
            )
            last = place
    return labels


def _edge(place: float) -> str | None:
    """A label at an end of the axis is shifted into the chart."""
    return "first" if place < 0.04 else "last" if place > 0.96 else None


def _data(chart: Chart, lines: Sequence[Line], across: Axis) -> Markup:
    """What the pointer is told, as it is written elsewhere on the page: in each of some hundred
    places the mean, and from where to where the values go."""
    low, high, write = across.low, across.high, formats.WRITERS[chart.unit]
    return data_block(
        {
            "low": low,
            "high": high,
            "lines": [
                {
                    "label": line.label,
                    "spots": [
                        [int(first), int(last), *map(write, values)]
                        for first, last, *values in summaries(line.x, line.y, _SPOTS, low, high)
                    ],
                }
                for line in lines
            ],
        }
    )
