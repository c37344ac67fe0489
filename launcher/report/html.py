"""HTML made of nested calls. What is not `Markup` is text, and is escaped.

    tag("p", "a < b", tag("b", name), class_="note")

There is no way to put a plain string into a page unescaped, so nobody has to think of it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, TypeAlias

#: Elements that have no content and no end tag.
_VOID = ("br", "img", "link", "meta")


class Markup(str):
    """A string that is HTML. Joining it to a plain one makes a plain one."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"


def text(value: object) -> Markup:
    """Any value as text. What UTF-8 cannot hold becomes a question mark."""
    if isinstance(value, Markup):
        return value
    readable = str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", "�")
    return Markup(html.escape(readable, quote=True))


def join(children: Child) -> Markup:
    """Children one after the other; None is left out."""
    if children is None:
        return Markup("")
    if isinstance(children, (str, int)):
        return text(children)
    return Markup("".join(map(join, children)))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: text, elements, or iterables of them.
        attributes: `class_` is class, and other underscores are hyphens (`aria_label`). None and
            False: left out. True: the name alone.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def data_block(value: Any) -> Markup:
    """A script element that holds JSON, and that no text in it can end."""
    content = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(f'<script type="application/json">{content}</script>')


def scrolled(label: str, *children: Child) -> Markup:
    """What may be wider than a phone: it scrolls by itself, by keyboard too, and the page does
    not."""
    return tag("div", *children, class_="scroll", role="region", aria_label=label, tabindex="0")


def table(
    label: str,
    head: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    numeric: bool = False,
) -> Markup:
    """A table whose first column names its rows.

    Args:
        label: what it shows, for those who do not see it.
        head: the cells of the first line, which is left out if all are empty.
        rows: the cells of the others.
        numeric: right-aligned.
    """
    lines = []
    for row in rows:
        first, *rest = row
        lines.append(tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in rest]))
    names = list(head)
    titles = tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in names]))
    body = [titles if any(names) else None, tag("tbody", lines)]
    return scrolled(label, tag("table", body, class_="numeric" if numeric else None))


def folded(title: Child, *children: Child) -> Markup:
    """What is shown when the title is clicked."""
    return tag("details", tag("summary", title), *children)
