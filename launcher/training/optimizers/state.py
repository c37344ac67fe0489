"""What the optimizers share: making their state, and writing parameters back."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, ops
from mindspore.common.initializer import initializer


def zeros(
    prefix: str, parameters: Sequence[Parameter], shapes: Sequence[tuple[int, ...]] | None = None
) -> ParameterTuple:
    """float32 zeros named `<prefix>.<parameter's name>`.

    Args:
        prefix: what they hold.
        parameters: one for each.
        shapes: their shapes; None: the parameters'.
    """
    shapes = [p.shape for p in parameters] if shapes is None else shapes
    return ParameterTuple(
        Parameter(
            initializer("zeros", shape, ms.float32),
            name=f"{prefix}.{parameter.name}",
            requires_grad=False,
        )
        for parameter, shape in zip(parameters, shapes)
    )


def store(parameter: Parameter, value: Tensor) -> Tensor:
    """Write `value`, cast to the parameter's dtype, into the parameter. For use in a graph."""
    value = value.astype(parameter.dtype)
    if parameter.dtype == ms.bfloat16:
        return parameter.copy_(value)  # Assign has no bfloat16 kernel on CPU
    return ops.assign(parameter, value)
