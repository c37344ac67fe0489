"""Turning what a user wrote into the type of an option.

YAML guesses types: `no` becomes False, `1e-5` a string, `1.0` a float though it names a branch.
Here the option's annotation decides, and the text as it was written is kept for that.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin


@dataclass(frozen=True)
class Given:
    """A value as it was written.

    Attributes:
        value: None, a bool, a list or dict of values; anything else is text.
        text: its text, if it is a scalar; on the command line, always what was typed.
        items: its elements, if it is a list.
        origin: where it stands: `my_run.yaml:12` or `command line`.
    """

    value: Any
    text: str | None
    origin: str
    items: tuple[Given, ...] | None = None


def convert(given: Given, annotation: Any, bounds: Mapping[str, float]) -> Any:
    """The value in the annotated type.

    Raises:
        ValueError: it is of another type or out of bounds; the message completes the sentence
            "train.seed is ..., but ...".
    """
    kinds = _alternatives(annotation)
    if str not in kinds:
        given = _split_at_commas(given)
    # Text comes last: it would take null and `[a, b]` too, where these have a meaning.
    for kind in sorted(kinds, key=lambda kind: kind is str):
        try:
            value = _convert_to(given, kind)
        except ValueError:
            continue
        _check_bounds(value, bounds)
        return value
    raise ValueError(f"must be {describe(annotation)}{_near_choice(given, annotation)}")


def describe(annotation: Any) -> str:
    """What an annotation takes, in words."""
    words = [_describe_one(kind) for kind in _alternatives(annotation)]
    return " or ".join(words)


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; capitals do not matter."""
    by_folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def shown(given: Given) -> str:
    """A value as messages quote it."""
    if given.text == "":
        return "empty"
    return repr(given.text if given.text is not None else given.value)


def _alternatives(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return [annotation]


def _split_at_commas(given: Given) -> Given:
    """`512,768` on the command line is a list where text is not allowed."""
    if given.origin != COMMAND_LINE or given.items is not None or "," not in (given.text or ""):
        return given
    parts = [part.strip() for part in (given.text or "").split(",")]
    return replace(given, items=tuple(Given(part, part, given.origin) for part in parts))


def _convert_to(given: Given, kind: Any) -> Any:
    if kind is type(None):
        typed = given.origin == COMMAND_LINE and (given.text or "").lower()
        if given.value is None or typed == "none":
            return None
        raise ValueError
    if get_origin(kind) in (list, tuple):
        return _convert_list(given, kind)
    if given.text is None:
        raise ValueError
    if kind is str and given.origin == COMMAND_LINE:
        return given.text  # `name=` and `name=null` too
    if given.value is None:
        raise ValueError
    if kind is str:
        return given.text
    if get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in get_args(kind)}
        if given.text not in choices:
            raise ValueError
        return choices[given.text]
    if kind is bool:
        if not isinstance(given.value, bool):
            raise ValueError
        return given.value
    if isinstance(given.value, bool):
        raise ValueError
    if kind is float:
        number = float(given.text)
        if not math.isfinite(number):
            raise ValueError
        return number
    if kind is int:
        try:
            return int(given.text)
        except ValueError:
            number = float(given.text)  # 1e3 is a whole number, too
            if not number.is_integer():
                raise
            return int(number)
    raise TypeError(f"options cannot be of type {kind}")


def _convert_list(given: Given, kind: Any) -> Any:
    element = get_args(kind)[0]
    if given.items is None:
        raise ValueError
    values = [_convert_to(item, element) for item in given.items]
    return tuple(values) if get_origin(kind) is tuple else values


def _check_bounds(value: Any, bounds: Mapping[str, float]) -> None:
    numbers = value if isinstance(value, (list, tuple)) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        for name, bound in bounds.items():
            holds, words = _BOUNDS[name]
            if not holds(number, bound):
                raise ValueError(f"must be {words} {bound:g}")


def describe_bounds(bounds: Mapping[str, float]) -> str:
    """Bounds in mathematical signs: `≥ 1, < 10`."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{signs[name]} {bound:g}" for name, bound in bounds.items())


def _describe_one(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (list, tuple):
        return f"a list (each element: {describe(get_args(kind)[0])})"
    return _WORDS[kind]


def _near_choice(given: Given, annotation: Any) -> str:
    """Of a list, what was meant by the first element that is no choice."""
    kinds = list(_alternatives(annotation))
    kinds += [get_args(kind)[0] for kind in kinds if get_origin(kind) in (list, tuple)]
    choices = [
        str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)
    ]
    words = [item.text or "" for item in given.items or ()] or [given.text or ""]
    wrong = [word for word in words if word not in choices]
    meant = near(wrong[0], choices) if wrong else None
    return f"; did you mean {meant}?" if meant else ""


COMMAND_LINE = "command line"

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}

_BOUNDS = {
    "ge": (lambda x, bound: x >= bound, "at least"),
    "gt": (lambda x, bound: x > bound, "greater than"),
    "le": (lambda x, bound: x <= bound, "at most"),
    "lt": (lambda x, bound: x < bound, "less than"),
}
