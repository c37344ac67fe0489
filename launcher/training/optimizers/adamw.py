"""AdamW as in torch (Loshchilov and Hutter, 2019), on one fused kernel a parameter.

MindSpore has none that is both right and runs everywhere: `nn.AdamWeightDecay` leaves out the
bias correction (under a constant gradient its steps are 3.2 times the learning rate at step 1 and
6.5 times at step 10), and the in-place optimizers of `mint.optim` change no parameter on CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from launcher.training.optimizers.state import zeros


class Coefficients(nn.Cell):
    """What the update of step t is computed with; every call advances t.

    The update `lr * (m / (sqrt(v) + eps) + decay * parameter)` knows no bias correction, so the
    corrections `1 - beta1**t` and `1 - beta2**t` go into the lr, eps and decay that it is given.
    They are computed as moving averages of ones: the difference itself would lose four digits in
    float32 at t = 1.
    """

    def __init__(self, beta1: float, beta2: float, eps: float, weight_decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.beta1 = Tensor(beta1, ms.float32)
        self.beta2 = Tensor(beta2, ms.float32)
        # The updates form 1 - beta in float32; the corrections must use the same number.
        self.rest1 = 1 - self.beta1
        self.rest2 = 1 - self.beta2
        self.eps = Tensor(eps, ms.float32)
        self.decay = Tensor(weight_decay, ms.float32)
        self.correction1 = Parameter(Tensor(0, ms.float32), name="adamw_correction1")
        self.correction2 = Parameter(Tensor(0, ms.float32), name="adamw_correction2")

    def construct(self, lr: Tensor) -> tuple[Tensor, ...]:
        """lr, beta1, beta2, eps, decay."""
        correction1 = self.beta1 * self.correction1 + self.rest1
        correction2 = self.beta2 * self.correction2 + self.rest2
        correction1 = ops.depend(correction1, ops.assign(self.correction1, correction1))
        correction2 = ops.depend(correction2, ops.assign(self.correction2, correction2))
        root2 = ops.sqrt(correction2)
        stretch = root2 / correction1
        return lr * stretch, self.beta1, self.beta2, self.eps * root2, self.decay / stretch


def _update(kernel, lr, beta1, beta2, eps, decay, parameter, m, v, gradient):
    gradient = gradient.astype(ms.float32)
    return kernel(parameter, m, v, lr, beta1, beta2, eps, decay, gradient)


class AdamWUpdate(nn.Cell):
    """The update and its state, for the optimizers that use it on some of their parameters.

    Every parameter is decayed, norms and biases too, by `1 - lr * weight_decay`, and then moved by

        lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps).

    Args:
        parameters: float32. The state is named after them: `adamw_m.*`, `adamw_v.*`.
        beta1, beta2: decay of the first and second moments.
        eps: added to the root of the corrected second moment.
        weight_decay: decoupled decay.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.m = zeros("adamw_m", parameters)
        self.v = zeros("adamw_v", parameters)
        self.coefficients = Coefficients(beta1, beta2, eps, weight_decay)
        # The kernel behind nn.AdamWeightDecay, on every device.
        self.kernel = ops.AdamWeightDecay()
        self.hyper_map = ops.HyperMap()

    def construct(self, lr: Tensor, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        lr, beta1, beta2, eps, decay = self.coefficients(lr)
        update = ops.partial(_update, self.kernel, lr, beta1, beta2, eps, decay)
        return self.hyper_map(update, self.parameters, self.m, self.v, gradients)


class AdamW(nn.Optimizer):
    """`AdamWUpdate` on all parameters: equal to `torch.optim.AdamW` (no AMSGrad).

    Args:
        parameters: float32 parameters.
        learning_rate: constant; `learning_rate` is a Parameter that may be assigned to.
        beta1, beta2, eps, weight_decay: see `AdamWUpdate`.
    """

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
        self.update = AdamWUpdate(self.parameters, beta1, beta2, eps, weight_decay)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.update(self.get_lr(), gradients)
