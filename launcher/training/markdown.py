"""Text that means itself in Markdown, as GitHub and the Hugging Face Hub read it."""

from __future__ import annotations

import re

#: Of these, `|` ends the cell of a table and `$` begins a formula.
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
#: What begins a heading, a list or a quotation, at the beginning of a line only.
_AT_THE_BEGINNING = re.compile(r"^(\d*)(?=(?:#{1,6}|[+-]|(?<=\d)[.)])(?:\s|$))")


def escaped(text: str) -> str:
    """The text in one line, without any markup: neither of Markdown nor of HTML."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(r"\\\1", line)
    return _AT_THE_BEGINNING.sub(r"\1\\", line)


def code(text: str) -> str:
    """The text in one line, as code."""
    line = " ".join(text.split())
    runs = re.findall(r"`+", line)
    fence = "`" * (max(map(len, runs), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def row(*cells: str) -> str:
    """A row of a table. A bar ends a cell even within code, and is taken literally if escaped."""
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\|", cell) for cell in cells) + " |"


def block(text: str, language: str = "") -> str:
    """A block of code."""
    runs = re.findall(r"`{3,}", text)
    fence = "`" * max(3, max(map(len, runs), default=0) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
