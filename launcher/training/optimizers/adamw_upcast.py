"""AdamW on half-precision parameters without a copy: update in float32, then round.

This is the article's policy C. The parameters take 2 bytes each, the moments 8. Rounded to
nearest, updates below half the distance between two numbers are lost; see `rounding` for the
other way.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from launcher.training.optimizers.adamw import Coefficients
from launcher.training.optimizers.rounding import counters, round_stochastically, uniform
from launcher.training.optimizers.state import store, zeros


def _updated(lr, beta1, beta2, eps, decay, parameter, m, v, gradient):
    """The parameter's new value, in float32; m and v are written."""
    gradient = gradient.astype(ms.float32)
    value = parameter.astype(ms.float32)
    m_next = beta1 * m + (1 - beta1) * gradient
    v_next = beta2 * v + (1 - beta2) * ops.square(gradient)
    value = value - lr * (m_next / (ops.sqrt(v_next) + eps) + decay * value)
    value = ops.depend(value, ops.assign(m, m_next))
    return ops.depend(value, ops.assign(v, v_next))


def _nearest(lr, beta1, beta2, eps, decay, parameter, m, v, gradient):
    return store(parameter, _updated(lr, beta1, beta2, eps, decay, parameter, m, v, gradient))


def _stochastic(
    lr, beta1, beta2, eps, decay, step, parameter, m, v, gradient, left, right, columns
):  # fmt: skip
    value = _updated(lr, beta1, beta2, eps, decay, parameter, m, v, gradient)
    if parameter.dtype != ms.float32:
        chance = ops.reshape(uniform(left, right, columns, step), value.shape)
        value = round_stochastically(value, parameter.dtype, chance)
    return store(parameter, value)


class AdamWUpcast(nn.Optimizer):
    """AdamW (see `adamw.AdamWUpdate`), computed in float32 and stored in the parameter's dtype.

    Args:
        parameters: bfloat16, float16 or float32.
        learning_rate: constant; `learning_rate` is a Parameter that may be assigned to.
        beta1, beta2, eps, weight_decay: as for AdamW.
        stochastic_rounding: round up or down at random, so that the mean is right.
        seed: of the rounding.

    The state is that of AdamW, in float32, and `global_step`, which the rounding depends on.
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
        stochastic_rounding: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate, parameters)
        self.m = zeros("adamw_m", self.parameters)
        self.v = zeros("adamw_v", self.parameters)
        self.coefficients = Coefficients(beta1, beta2, eps, weight_decay)
        self.stochastic_rounding = stochastic_rounding
        if stochastic_rounding:
            self.left, self.right, self.columns = zip(
                *(counters(seed, parameter) for parameter in self.parameters)
            )

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        lr, beta1, beta2, eps, decay = self.coefficients(self.get_lr())
        parameters, m, v = self.parameters, self.m, self.v
        if not self.stochastic_rounding:
            update = ops.partial(_nearest, lr, beta1, beta2, eps, decay)
            return self.hyper_map(update, parameters, m, v, gradients)
        step = self.global_step + self.global_step_increase_tensor  # counted from 1
        gradients = ops.depend(gradients, ops.assign(self.global_step, step))
        update = ops.partial(_stochastic, lr, beta1, beta2, eps, decay, step)
        return self.hyper_map(
            update, parameters, m, v, gradients, self.left, self.right, self.columns
        )
