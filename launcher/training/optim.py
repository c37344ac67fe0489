"""Optimizers, each a `mindspore.nn.Optimizer` whose learning rate the step sets.

`AdamW` is torch's AdamW. MindSpore has none that is both right and runs everywhere:
`nn.AdamWeightDecay` leaves out the bias correction (under a constant gradient its steps are
3.2 times the learning rate at step 1 and 6.5 times at step 10), and the in-place optimizers of
`mint.optim` change no parameter on CPU.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from launcher.training.errors import UserError

_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register(
    "Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor",
    "Tensor",
)  # fmt: skip
def _update_one(kernel, lr, beta1, beta2, eps, decay, parameter, m, v, gradient):
    return kernel(parameter, m, v, lr, beta1, beta2, eps, decay, gradient)


class AdamW(nn.Optimizer):
    """Adam with decoupled weight decay and bias correction (Loshchilov and Hutter, 2019).

    Equal to `torch.optim.AdamW` (no AMSGrad): every parameter is decayed, norms and biases
    too, by `1 - lr * weight_decay`, and then moved by

        lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps).

    Args:
        parameters: float32 parameters.
        learning_rate: constant; `learning_rate` is a Parameter that may be assigned to.
        beta1, beta2: decay of the first and second moments.
        eps: added to the root of the corrected second moment.
        weight_decay: decoupled decay.

    The state is `adamw_m.*`, `adamw_v.*` (float32) and the two bias corrections.
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
        super().__init__(learning_rate, parameters, weight_decay)
        self.m = self.parameters.clone(prefix="adamw_m", init="zeros")
        self.v = self.parameters.clone(prefix="adamw_v", init="zeros")
        self.beta1 = Tensor(beta1, ms.float32)
        self.beta2 = Tensor(beta2, ms.float32)
        # The kernel forms 1 - beta in float32; the corrections must use the same number.
        self.rest1 = 1 - self.beta1
        self.rest2 = 1 - self.beta2
        self.eps = Tensor(eps, ms.float32)
        self.decay = Tensor(weight_decay, ms.float32)
        # 1 - beta**t, computed as a moving average of ones: the difference itself would lose
        # four digits in float32 at t = 1.
        self.correction1 = Parameter(Tensor(0, ms.float32), name="adamw_correction1")
        self.correction2 = Parameter(Tensor(0, ms.float32), name="adamw_correction2")
        # The kernel behind nn.AdamWeightDecay, on every device. It knows no bias correction:
        #     parameter -= lr * (m / (sqrt(v) + eps) + decay * parameter)
        # so the corrections go into the lr, eps and decay that it is given.
        self.kernel = ops.AdamWeightDecay()

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        lr = self.get_lr()
        correction1 = self.beta1 * self.correction1 + self.rest1
        correction2 = self.beta2 * self.correction2 + self.rest2
        root2 = ops.sqrt(correction2)
        stretch = root2 / correction1
        gradients = ops.depend(gradients, ops.assign(self.correction1, correction1))
        gradients = ops.depend(gradients, ops.assign(self.correction2, correction2))
        return self.hyper_map(
            ops.partial(
                _update,
                self.kernel,
                lr * stretch,
                self.beta1,
                self.beta2,
                self.eps * root2,
                self.decay / stretch,
            ),
            self.parameters,
            self.m,
            self.v,
            gradients,
        )


def build_optimizer(
    name: str,
    parameters: list[Parameter],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> nn.Optimizer:
    """Make an optimizer by name.

    Args:
        name: `adamw` (the class above) or `adam_weight_decay` (`mindspore.nn`: no bias
            correction; decays neither parameters called beta nor gamma).
        parameters: what to train.
        beta1, beta2, eps, weight_decay: as usual for Adam.

    Raises:
        UserError: a parameter is not float32. Both update in the parameter's own dtype, in
            which half precision loses small updates.
    """
    wrong = [p.name for p in parameters if p.dtype != ms.float32]
    if wrong:
        raise UserError(
            f"optimizer {name!r} updates parameters in their own dtype and needs float32, but "
            f"{len(wrong)} of {len(parameters)} trainable parameters are not (first: "
            f"{wrong[0]}). Keep trainable parameters in float32 in apply_precision."
        )
    # The rate is a placeholder: the step assigns the scheduled one before each update.
    options: dict[str, Any] = dict(beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
    if name == "adamw":
        return AdamW(parameters, learning_rate=1.0, **options)
    if name == "adam_weight_decay":
        return nn.AdamWeightDecay(parameters, learning_rate=1.0, **options)
    raise ValueError(f"no optimizer named {name!r}")
