"""Whether what a file holds is of the types that it should be of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: A number that can be shown: finite, and less than 1e18.
NUMBER = (int, float)
TEXT = (str,)
TEXT_OR_NULL = (str, type(None))
ANYTHING = (object,)

_KINDS = {
    dict: "a mapping", list: "a list", str: "a text", bool: "a truth value", int: "a number",
    float: "a number", type(None): "null",
}  # fmt: skip


def misfit(value: Any, shape: Any, name: str = "") -> str | None:
    """What is wrong with a value, as half a sentence; None: nothing.

        misfit(value, {"files": [TEXT], "sizes": {str: NUMBER}})

    Args:
        value: from JSON or YAML.
        shape: a tuple of types; or a list of one shape, that of all elements; or a dict of shapes
            by name, where `str` stands for every name. Any name may be missing, and further ones
            may be there.
        name: of the value, for the message.
    """
    if isinstance(shape, tuple):
        if not isinstance(value, shape):
            return f"{name} is {_kind(value)} instead of {_kind(shape[0]())}"
        if shape is NUMBER and not abs(value) < 1e18:
            return f"{name} is too large a number"
        return None
    if not isinstance(value, type(shape)):
        return f"{name or 'it'} is {_kind(value)} instead of {_KINDS[type(shape)]}"
    inner: Iterable[tuple[Any, Any, str]]
    if isinstance(shape, list):
        inner = ((element, shape[0], f"{name}[{i}]") for i, element in enumerate(value))
    else:
        for key in value:
            if not isinstance(key, str):
                return f"{name or 'it'} has the name {key!r}, which is no text"
        inner = (
            (element, shape.get(str, shape.get(key, ANYTHING)), f"{name}.{key}" if name else key)
            for key, element in value.items()
        )
    return next((found for entry in inner if (found := misfit(*entry))), None)


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")
