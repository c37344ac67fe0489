"""An exponential moving average of the trained weights, which samples better than the last ones.

After step n, counted from 1, the average moves by `1 - decay(n)` towards the weights, with
`decay(n) = min(ema_decay, n / (9 + n))`, and 0 at the first step: the rule of diffusers'
`EMAModel` without warm-up. It is a function of the step, so a continued run needs the averages and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from launcher.training import weights

_move = ops.MultitypeFuncGraph("move")


@_move.register("Tensor", "Tensor", "Tensor")
def _move_one(share, average, weight):
    return ops.assign_add(average, share * (weight.astype(ms.float32) - average))


def decay_at(step: int, limit: float) -> float:
    """What the average keeps of itself.

    Args:
        step: number of the step just done, from 1.
        limit: what the decay rises to.
    """
    return min(limit, step / (9 + step)) if step > 1 else 0.0


class Ema:
    """The averages, in float32 on the device.

    Args:
        parameters: what is averaged, with values.
        decay: what the decay rises to, such as 0.999.
    """

    def __init__(self, parameters: Sequence[Parameter], decay: float) -> None:
        self._decay = decay
        self._averages = ParameterTuple(
            Parameter(
                Tensor(weights.value_of(parameter).astype("float32")),
                name=f"ema.{parameter.name}",
                requires_grad=False,
            )
            for parameter in parameters
        )
        self._parameters = tuple(parameters)
        self._cell = _Move(self._averages, ParameterTuple(parameters))

    def compile(self) -> None:
        """Compile the update without running it. In graph mode."""
        self._cell.compile(Tensor(0.0, ms.float32))

    def update(self, step: int) -> None:
        """Move towards the weights.

        Args:
            step: number of the step just done, from 1.
        """
        self._cell(Tensor(1.0 - decay_at(step, self._decay), ms.float32))

    def averages(self) -> Mapping[int, Parameter]:
        """The average of each parameter, by the `id` of the parameter."""
        return {id(p): average for p, average in zip(self._parameters, self._averages)}


class _Move(nn.Cell):
    def __init__(self, averages: ParameterTuple, parameters: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.averages = averages
        self.parameters = parameters
        self.hyper_map = ops.HyperMap()

    def construct(self, share: Tensor) -> tuple[Tensor, ...]:
        return self.hyper_map(ops.partial(_move, share), self.averages, self.parameters)
