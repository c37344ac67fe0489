"""Muon: momentum of matrices, orthogonalised (Jordan et al., 2024).

Its steps are scaled to the root mean square of AdamW's, 0.2, as Moonlight's are (Liu et al.,
"Muon is scalable for LLM training", 2025, equation 4), so one learning rate and one weight decay
serve the matrices and the rest. The formulas are those of
`torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, whose iteration runs in bfloat16; this one
runs in float32.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from launcher.training.optimizers.adamw import AdamWUpdate
from launcher.training.optimizers.state import zeros

# Jordan's quintic: as steep at zero as it can be while singular values end up around 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7
_RMS = 0.2


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of the given one and singular values around 1.

    Newton-Schulz iteration. `[R, C]`, float32.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / ops.maximum(ops.sqrt(ops.reduce_sum(ops.square(x))), Tensor(_EPS, ms.float32))
    for _ in range(_ITERATIONS):
        gram = ops.matmul(x, x.T)
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return x if wide else x.T


def _update_matrix(lr, momentum, rest, decay, parameter, average, gradient):
    gradient = gradient.astype(ms.float32)
    average_next = momentum * average + rest * gradient
    direction = orthogonalize(rest * gradient + momentum * average_next)  # Nesterov's
    step = lr * (_RMS * max(parameter.shape) ** 0.5)
    value = parameter - lr * decay * parameter - step * direction
    value = ops.depend(value, ops.assign(average, average_next))
    return ops.assign(parameter, value)


class Muon(nn.Optimizer):
    """Parameters of two dimensions by Muon, all others (biases, norms, convolutions) by AdamW.

    Args:
        parameters: float32.
        learning_rate: constant; `learning_rate` is a Parameter that may be assigned to.
        momentum: decay of the matrices' average gradient.
        beta1, beta2, eps: of AdamW.
        weight_decay: decoupled decay, of all parameters.

    The state is `muon_momentum.*` of the matrices, and of the others that of AdamW.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        learning_rate: float = 1e-3,
        momentum: float = 0.95,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(learning_rate, parameters)
        self.orthogonalized = tuple(i for i, p in enumerate(self.parameters) if p.ndim == 2)
        self.others = tuple(i for i, p in enumerate(self.parameters) if p.ndim != 2)
        self.matrices = ParameterTuple([self.parameters[i] for i in self.orthogonalized])
        self.averages = zeros("muon_momentum", self.matrices)
        self.momentum = Tensor(momentum, ms.float32)
        self.rest = Tensor(1 - momentum, ms.float32)
        self.decay = Tensor(weight_decay, ms.float32)
        if self.others:
            rest = [self.parameters[i] for i in self.others]
            self.adamw = AdamWUpdate(rest, beta1, beta2, eps, weight_decay)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        lr = self.get_lr()
        done = ()
        if self.orthogonalized:
            done += self.hyper_map(
                ops.partial(_update_matrix, lr, self.momentum, self.rest, self.decay),
                self.matrices,
                self.averages,
                tuple([gradients[i] for i in self.orthogonalized]),
            )
        if self.others:
            done += self.adamw(lr, tuple([gradients[i] for i in self.others]))
        return done
