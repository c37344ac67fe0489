"""CAME (Luo et al., "CAME: Confidence-guided adaptive memory efficient optimization", 2023).

The second moments of a matrix are kept as one row and one column, which leaves the first moment
as the only state of the parameter's size. Follows the authors' code, `came-pytorch` 0.1.3.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from launcher.training.optimizers.state import zeros

# The paper's eps1, eps2 and d. The first two only keep divisions from zero by zero.
_EPS_SQUARE = 1e-30
_EPS_RESIDUAL = 1e-16
_CLIP = 1.0


def _average(keep, rest, state, value):
    """The moving average of `state`, written and returned."""
    average = keep * state + rest * value
    return ops.depend(average, ops.assign(state, average))


def _inverse_root(row, column):
    """1 / sqrt of the matrix that a row and a column of means stand for."""
    row = ops.rsqrt(row / ops.mean(row, -1, True))
    return row.expand_dims(-1) * ops.rsqrt(column).expand_dims(-2)


def _clipped(update):
    """The update with a root mean square of at most `_CLIP`."""
    rms = ops.sqrt(ops.mean(ops.square(update)))
    return update / ops.maximum(rms / _CLIP, Tensor(1.0, ms.float32))


def _move(lr, decay, parameter, update):
    return ops.assign(parameter, parameter - lr * decay * parameter - lr * update)


def _update_matrix(
    lr, betas, rests, decay, parameter, m, row, column, residual_row, residual_column, gradient
):
    gradient = gradient.astype(ms.float32)
    square = ops.square(gradient) + _EPS_SQUARE
    row = _average(betas[1], rests[1], row, ops.mean(square, -1))
    column = _average(betas[1], rests[1], column, ops.mean(square, -2))
    update = _clipped(_inverse_root(row, column) * gradient)
    m = _average(betas[0], rests[0], m, update)
    # Confidence: how far the update was from its own average.
    residual = ops.square(update - m) + _EPS_RESIDUAL
    row = _average(betas[2], rests[2], residual_row, ops.mean(residual, -1))
    column = _average(betas[2], rests[2], residual_column, ops.mean(residual, -2))
    return _move(lr, decay, parameter, _inverse_root(row, column) * m)


def _update_vector(lr, betas, rests, decay, parameter, m, v, gradient):
    gradient = gradient.astype(ms.float32)
    v = _average(betas[1], rests[1], v, ops.square(gradient) + _EPS_SQUARE)
    m = _average(betas[0], rests[0], m, _clipped(ops.rsqrt(v) * gradient))
    return _move(lr, decay, parameter, m)


class CAME(nn.Optimizer):
    """CAME; parameters of two and more dimensions are factored over the last two.

    Args:
        parameters: float32.
        learning_rate: constant; `learning_rate` is a Parameter that may be assigned to.
        beta1, beta2, beta3: decay of the update's average, of the squares, and of the residuals.
        weight_decay: decoupled decay, of all parameters.

    The state is `came_m.*`; `came_row.*`, `came_column.*`, `came_residual_row.*` and
    `came_residual_column.*` of factored parameters; `came_v.*` of the others.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        beta3: float = 0.9999,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, parameters)
        # 1 - 0.9999 formed in float32 would be 1.7e-4 off.
        self.betas = tuple(Tensor(beta, ms.float32) for beta in (beta1, beta2, beta3))
        self.rests = tuple(Tensor(1 - beta, ms.float32) for beta in (beta1, beta2, beta3))
        self.decay = Tensor(weight_decay, ms.float32)

        self.factored = tuple(i for i, p in enumerate(self.parameters) if p.ndim > 1)
        self.others = tuple(i for i, p in enumerate(self.parameters) if p.ndim <= 1)
        matrices = [self.parameters[i] for i in self.factored]
        vectors = [self.parameters[i] for i in self.others]
        rows = [p.shape[:-1] for p in matrices]
        columns = [p.shape[:-2] + p.shape[-1:] for p in matrices]
        self.matrices = ParameterTuple(matrices)
        self.matrix_m = zeros("came_m", matrices)
        self.row = zeros("came_row", matrices, rows)
        self.column = zeros("came_column", matrices, columns)
        self.residual_row = zeros("came_residual_row", matrices, rows)
        self.residual_column = zeros("came_residual_column", matrices, columns)
        self.vectors = ParameterTuple(vectors)
        self.vector_m = zeros("came_m", vectors)
        self.v = zeros("came_v", vectors)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        lr, betas, rests, decay = self.get_lr(), self.betas, self.rests, self.decay
        done = ()
        if self.factored:
            done += self.hyper_map(
                ops.partial(_update_matrix, lr, betas, rests, decay),
                self.matrices,
                self.matrix_m,
                self.row,
                self.column,
                self.residual_row,
                self.residual_column,
                tuple([gradients[i] for i in self.factored]),
            )
        if self.others:
            done += self.hyper_map(
                ops.partial(_update_vector, lr, betas, rests, decay),
                self.vectors,
                self.vector_m,
                self.v,
                tuple([gradients[i] for i in self.others]),
            )
        return done
