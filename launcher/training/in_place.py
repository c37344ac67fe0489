"""Compile `x += y` as `x = (x + y).astype(x.dtype)`, and the other operators alike.

MindSpore 2.10 compiles it, for a tensor, to an operator that changes the tensor in place, and what
it notes of such an operator outlives the compilation: from then on the process takes every `+=`
for a side effect, that of two integers too, of which its indexing of tensors is made. Such nodes
are no longer folded away ("Some side effect nodes were eliminated by mistake"), and some graphs do
not compile at all ("The pointer[manager] is null"): the gradients of an AutoencoderKL, for one,
after MindONE's T5 and a block of FLUX. Compiling again does not help.

So a tensor that goes by another name too stays as it is under that one. Integers that meet
fractions become fractions, and are not cut off to integers. What runs operator by operator is left
as MindSpore has it.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def compile_as_plain() -> None:
    """To be called before anything is compiled. Counts for the whole process."""
    replacements = {
        "add": add,
        "sub": subtract,
        "mul": multiply,
        "div": divide,
        "floordiv": floor_divide,
        "mod": remainder,
    }
    for name, replacement in replacements.items():
        module = importlib.import_module(f"mindspore.ops.composite.multitype_ops.{name}_impl")
        operator = getattr(module, f"augassign_{name}", None)
        if operator is None:
            continue  # an earlier MindSpore, whose operators are plain
        for other in ("Tensor", "Number"):
            operator.register("Tensor", other)(replacement)


# Compiled from source.


def add(x: Any, y: Any) -> Any:
    return _as_before(x, x + y)


def subtract(x: Any, y: Any) -> Any:
    return _as_before(x, x - y)


def multiply(x: Any, y: Any) -> Any:
    return _as_before(x, x * y)


def divide(x: Any, y: Any) -> Any:
    return _as_before(x, x / y)


def floor_divide(x: Any, y: Any) -> Any:
    return _as_before(x, x // y)


def remainder(x: Any, y: Any) -> Any:
    return _as_before(x, x % y)


def _as_before(x: Any, result: Any) -> Any:
    """The result in the dtype of what it replaces; fractions that come of integers stay
    fractions."""
    if result.is_floating_point() and not x.is_floating_point():
        return result
    return result.astype(x.dtype)
