"""AdamW with a float32 master copy: half-precision parameters that lose no update.

The copy takes the update, and the parameters become the copy rounded to nearest. It costs 4 bytes
a parameter beyond the moments' 8. MindONE's optimizer of that name (`BF16AdamW`) keeps its
moments in bfloat16 and does not run on CPU.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from launcher.training.optimizers.adamw import AdamWUpdate
from launcher.training.optimizers.state import store


class AdamWBF16(nn.Optimizer):
    """`AdamWUpdate` on float32 copies of the parameters.

    Args:
        parameters: bfloat16, float16 or float32; the last need no copy and get none.
        learning_rate: constant; `learning_rate` is a Parameter that may be assigned to.
        beta1, beta2, eps, weight_decay: see `AdamWUpdate`.

    The state is that of AdamW, named after the copies, and the copies: `master.*`.
    """

    updates_in_float32 = True  # for `launcher.training.precision`

    def __init__(
        self,
        parameters: list[Parameter],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(learning_rate, parameters)
        masters = [p if p.dtype == ms.float32 else _master(p) for p in self.parameters]
        self.update = AdamWUpdate(masters, beta1, beta2, eps, weight_decay)
        halves = [(p, m) for p, m in zip(self.parameters, masters) if p is not m]
        self.half_parameters = ParameterTuple([p for p, _ in halves])
        self.half_masters = ParameterTuple([m for _, m in halves])

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        updated = self.update(self.get_lr(), gradients)
        if not self.half_parameters:
            return updated
        masters = ops.depend(self.half_masters, updated)
        return self.hyper_map(store, self.half_parameters, masters)


def _master(parameter: Parameter) -> Parameter:
    value = parameter.astype(ms.float32)
    return Parameter(value, name=f"master.{parameter.name}", requires_grad=False)
