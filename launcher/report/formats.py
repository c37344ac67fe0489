"""Figures as a reader wants them."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from launcher.training.sizes import size_text

NUMBER, SECONDS, BYTES, SHARE = "number", "seconds", "bytes", "share"


def number(value: float, digits: int = 4) -> str:
    """`0.3124`, `12,300`, `1e-05`: so many significant digits."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        written = f"{value:,.{decimals}f}"
        return written.rstrip("0").rstrip(".") if "." in written else written
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def seconds(value: float) -> str:
    """`310 ms`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if not math.isfinite(value):
        return "–"
    if value < 0.9995:
        return f"{number(value * 1000, 3)} ms"
    if value < 99.95:
        return f"{number(value, 3)} s"
    whole = round(value)
    for name, each, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= each:
            rest = whole % each // part
            return f"{whole // each} {name}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError


def share(value: float) -> str:
    """`12.5 %`."""
    return f"{number(100 * value, 3)} %" if math.isfinite(value) else "–"


def size(value: float) -> str:
    """`4.2 MB`; a dash for what is not known."""
    return size_text(value) if math.isfinite(value) else "–"


def moment(timestamp: float) -> str:
    """A file's time, in UTC."""
    return datetime.fromtimestamp(timestamp, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


WRITERS = {NUMBER: number, SECONDS: seconds, BYTES: size, SHARE: share}
