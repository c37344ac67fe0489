"""The figures as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from launcher.training.tables import SHOWN

_WIDTH = 20  # of the left column


def describe(part: Mapping[str, Any]) -> str:
    """What `summary` returned, as lines."""
    sections = [
        [part["title"].upper()] if part["title"] else [],
        _rows(part),
        _images(part),
        _captions(part["captions"]),
        kinds("cannot be used", part["problems"]),
        kinds("can be used, but note", part["notes"]),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def line(name: str, text: str) -> str:
    """A row of two columns."""
    return f"  {name:<{_WIDTH}}{text}" if len(name) < _WIDTH else f"  {name}  {text}"


def number(count: int, one: str, several: str | None = None) -> str:
    """`1 image`, `64,000 images`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def percent(part: int, whole: int) -> str:
    """A share; `0 %` only if it is nothing, `100 %` only if it is all."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99.9 < share < 100:
        return "over 99.9 %"
    return f"{share:.1f} %".replace(".0 %", " %")


def _rows(part: Mapping[str, Any]) -> list[str]:
    bad = part["rows"] - part["usable_rows"]
    rows = number(part["rows"], "row")
    lines = [
        f"data set  {part['data_set']}",
        f"          {rows}; " + (f"{bad:,} cannot be used" if bad else "all can be used"),
    ]
    if part["rows"] and not part["jpeg_data_checked"]:
        needed = "needs OpenCV to be seen" if part["decoded"] else "shows only with --full"
        lines.append(f"          (damage inside JPEG files {needed})")
    if part["to_make"]:
        made = number(part["to_make"], "image that is", "images that are")
        lines.append(f"          {made} not there yet would be made before training")
    return lines


# -------------------------------------------------------------------------------------------
# Images
# -------------------------------------------------------------------------------------------


def _images(part: Mapping[str, Any]) -> list[str]:
    lines = ["images (width x height in pixels)"]
    for column, found in part["images"].items():
        lines += _column(column, found)
    count = next(iter(part["images"].values()))["images"]
    if not count:
        return lines
    trained = [
        f"{_by(size)}" + (f" ({size['images']:,})" if len(part["training_sizes"]) > 1 else "")
        for size in part["training_sizes"]
    ]
    lines += [f"  trained at {', '.join(trained)}:"]
    crop, enlarged = part["crop"], part["enlarged"]
    limit = f"{100 * crop['limit']:.0f} %"
    lines.append(
        (
            f"    {_share(crop['images'], count)} lose more than {limit} of their area to the crop"
            if crop["images"]
            else f"    no image loses more than {limit} of its area to the crop"
        )
        + (f" (the most: {100 * crop['largest']:.0f} %)" if crop["largest"] > 0.005 else "")
        + _some_rows(crop)
    )
    lines.append(
        (
            f"    {_share(enlarged['images'], count)} are smaller and get enlarged"
            if enlarged["images"]
            else "    no image is smaller than that"
        )
        + (f" (the most: {enlarged['largest']:.3g} times)" if enlarged["images"] else "")
        + _some_rows(enlarged)
    )
    return lines


def _column(name: str, found: Mapping[str, Any]) -> list[str]:
    if not found["images"]:
        return [line(name, "none that can be used")]
    distinct = found["distinct"]
    kind = "different one" if found["distinct_by"] == "content" else "different file"
    lines = [line(name, f"{number(found['images'], 'image')}, {number(distinct, kind)}")]
    if found["sizes"] == 1:
        return [*lines, line("", f"all are {_by(found['most_common'][0])}")]
    for side in ("width", "height"):
        s = found[side]
        lines.append(line("", f"{side:<7}{s['min']} to {s['max']}, median {s['median']}"))
    common = [f"{_by(size)} ({size['images']:,})" for size in found["most_common"]]
    more = found["sizes"] - len(common)
    if more:
        common.append(f"{number(more, 'other size')}")
    lines.append(line("", f"sizes  {', '.join(common)}"))
    label = "width / height"
    for ratio in found["aspect_ratios"]:
        if ratio["images"]:
            bounds = _bounds(ratio["from"], ratio["below"])
            lines.append(
                line("", f"{label:<16}{bounds:<14}{_share(ratio['images'], found['images'])}")
            )
            label = ""
    return lines


def _by(size: Mapping[str, int]) -> str:
    return f"{size['width']} x {size['height']}"


def _bounds(low: float, high: float | None) -> str:
    if high is None:
        return f"{low:g} and more"
    return f"{low:g} to {high:g}" if low else f"below {high:g}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({percent(part, whole)})"


def _some_rows(examples: Mapping[str, Any]) -> str:
    rows = examples["rows"][:SHOWN]
    if not rows:
        return ""
    more = ", ..." if examples["images"] > len(rows) else ""
    return f": row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}{more}"


# -------------------------------------------------------------------------------------------
# Captions
# -------------------------------------------------------------------------------------------


def _captions(found: Mapping[str, Any]) -> list[str]:
    lines = ["captions"]
    if not found["captions"]:
        return [*lines, "  none"]
    lines.append(f"  {number(found['captions'], 'caption')}, {found['distinct']:,} different")
    per_row = found["per_row"]
    if per_row["max"] > 1:
        several = per_row["min"] != per_row["max"]
        spread = f"{per_row['min']} to {per_row['max']}" if several else f"{per_row['max']}"
        lines.append(line("a row has", f"{spread} of them"))
    if found["default"]:
        rows = number(found["default"], "row has", "rows have")
        lines.append(line("", f"{rows} none of their own and get the default"))
    label = "most repeated"
    for item in found["most_repeated"]:
        lines.append(line(label, f"{item['times']:,} x {item['caption']!r}"))
        label = ""
    for length in found["lengths"]:
        lines += _length(length)
    return lines


def _length(found: Mapping[str, Any]) -> list[str]:
    spread = (
        f"all have {found['min']:,}"
        if found["min"] == found["max"]
        else f"{found['min']:,} to {found['max']:,}, median {found['median']:,}, "
        f"95 % have at most {found['p95']:,}"
    )
    lines = [line(found["unit"], spread)]
    if "limit" not in found:
        return lines
    limit = f"{found['limit']} ({found['limited_by']})"
    if not found["cut"]:
        return [*lines, line("", f"none is longer than {limit}")]
    one = found["cut"] == 1
    text = f"{found['cut']:,} {'is' if one else 'are'} longer than {limit}, and the rest is cut off"
    lines.append(line("", text + (":" if found["cut_captions"] else "")))
    for item in islice(found["cut_captions"], SHOWN):
        lines.append(line("", f"  row {item['row']}: {item['length']:,}, {item['caption']!r}"))
    return lines


# -------------------------------------------------------------------------------------------
# What was found by row
# -------------------------------------------------------------------------------------------


def kinds(title: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counts with a few examples of each; nothing if there is nothing."""
    if not found:
        return []
    lines = [title]
    for kind in found:
        lines.append(f"  {kind['count']:,} x {kind['kind']}")
        lines += [f"    {_place(item)}: {item['text']}" for item in _first(kind["items"])]
        if (more := kind["count"] - SHOWN) > 0:
            lines.append(f"    ... and {more:,} more")
    return lines


def _first(items: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return islice(items, SHOWN)


def _place(item: Mapping[str, Any]) -> str:
    where: str = item["where"]
    return f"{where}, column {item['column']!r}" if "column" in item else where
