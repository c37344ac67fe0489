"""Sizes and times as people write them."""

from __future__ import annotations

import re

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def size_text(size: float) -> str:
    """`37 B`, `4.2 MB`, `812 GB`: three digits, decimal units."""
    for unit, each in (("B", 1), ("kB", 10**3), ("MB", 10**6), ("GB", 10**9), ("TB", 10**12)):
        value = size / each
        if value < 999.5 or unit == "TB":
            digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:,.{digits}f} {unit}"
    raise AssertionError


def parse_size(text: str) -> int:
    """Bytes from `50GB`, `1.5 TB`, `500MiB`. ValueError says what is wrong."""
    number, unit = _split(text)
    if unit.upper() not in _SIZES:
        raise ValueError(f"{text!r} is no size; write it with its unit, as in 50GB or 500MB")
    return int(number * _SIZES[unit.upper()])


def parse_time(text: str) -> float:
    """Seconds from `30d`, `12h`, `2w`. ValueError says what is wrong."""
    number, unit = _split(text)
    if unit not in _TIMES:
        raise ValueError(f"{text!r} is no time; write it with its unit, as in 30d, 12h or 2w")
    return number * _TIMES[unit]


def age_text(seconds: float) -> str:
    """`just now`, `5 minutes ago`, `3 days ago`."""
    for name, each in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // each)
        if count > 0:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def _split(text: str) -> tuple[float, str]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text.strip(), re.ASCII)
    return (float(match[1]), match[2]) if match else (0.0, "?")
