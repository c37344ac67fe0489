"""The compiled training step: loss, backward pass, clipping, update.

One optimisation step is one call of one compiled graph. With gradient accumulation it is one
graph per micro-batch that adds up gradients, and a small one that applies them.

The learning rate is an input of the graph: a schedule needs no table on the device, cannot run
past its end, and is resumed by the number of the step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from launcher.training import weights
from launcher.training.optimizers.state import zeros

if TYPE_CHECKING:
    import numpy as np

# Start and growth as in torch's GradScaler: double after 2000 finite steps, halve on overflow.
_INITIAL_LOSS_SCALE = 2.0**16
_LOSS_SCALE_WINDOW = 2000

_square_sum = ops.MultitypeFuncGraph("square_sum")
_scale = ops.MultitypeFuncGraph("scale")
_accumulate = ops.MultitypeFuncGraph("accumulate")
_clear = ops.MultitypeFuncGraph("clear")


@_square_sum.register("Tensor")
def _square_sum_one(gradient):
    return ops.reduce_sum(ops.square(gradient.astype(ms.float32)))


@_scale.register("Tensor", "Tensor")
def _scale_one(factor, gradient):
    # In float32: a float16 gradient without its loss scale would be zero.
    return gradient.astype(ms.float32) * factor


@_accumulate.register("Tensor", "Tensor")
def _accumulate_one(total, gradient):
    return ops.assign_add(total, gradient.astype(ms.float32))


@_clear.register("Tensor")
def _clear_one(total):
    return ops.assign(total, ops.zeros_like(total))


def dynamic_loss_scaler() -> ms.amp.DynamicLossScaler:
    """The loss scaler for float16: doubles after 2000 finite steps, halves on overflow."""
    return ms.amp.DynamicLossScaler(
        scale_value=_INITIAL_LOSS_SCALE, scale_factor=2, scale_window=_LOSS_SCALE_WINDOW
    )


class Gradients(nn.Cell):
    """Loss and gradients of one micro-batch; the loss is multiplied by the loss scale."""

    def __init__(
        self,
        loss: nn.Cell,
        parameters: Sequence[Parameter],
        loss_scaler: ms.amp.DynamicLossScaler | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.loss_scaler = loss_scaler
        self.value_and_grad = ms.value_and_grad(self.scaled_loss, None, weights=parameters)

    def scaled_loss(self, *inputs: Tensor) -> Tensor:
        loss = self.loss(*inputs)
        if self.loss_scaler is not None:
            loss = self.loss_scaler.scale(loss)
        return loss

    def construct(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss, gradients = self.value_and_grad(*inputs)
        if self.loss_scaler is not None:
            loss = self.loss_scaler.unscale(loss)
        return loss, gradients


class _Update(nn.Cell):
    """Unscale, clip and apply gradients, all of it in float32.

    The clip factor is `max_grad_norm / (norm + 1e-6)` where that is below 1, as in torch's
    `clip_grad_norm_`. An update whose gradients are not all finite is left out: it would make
    every weight NaN. With a loss scaler, the scale is lowered then.
    """

    def __init__(
        self,
        optimizer: nn.Optimizer,
        max_grad_norm: float | None,
        loss_scaler: ms.amp.DynamicLossScaler | None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.loss_scaler = loss_scaler
        self.hyper_map = ops.HyperMap()
        self.one = Tensor(1.0, ms.float32)

    def construct(
        self, learning_rate: Tensor, factor: Tensor, gradients: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Apply `factor * gradients`; returns (norm before clipping, whether applied)."""
        if self.loss_scaler is not None:
            factor = factor / self.loss_scaler.scale_value
        norm = ops.sqrt(ops.addn(self.hyper_map(_square_sum, gradients))) * factor
        if self.max_grad_norm is not None:
            factor = factor * ops.minimum(self.max_grad_norm / (norm + 1e-6), self.one)
        gradients = self.hyper_map(ops.partial(_scale, factor), gradients)
        finite = ops.isfinite(norm)
        if self.loss_scaler is not None:
            norm = ops.depend(norm, self.loss_scaler.adjust(finite))
        if finite:
            norm = ops.depend(norm, self.apply_gradients(learning_rate, gradients))
        return norm, finite

    def apply_gradients(self, learning_rate: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
        rate = ops.assign(self.optimizer.learning_rate, learning_rate)
        return self.optimizer(ops.depend(gradients, rate))


class _Step(nn.Cell):
    """One micro-batch to one update, in one graph."""

    def __init__(self, gradients: Gradients, update: _Update) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.update = update
        self.one = Tensor(1.0, ms.float32)

    def construct(self, learning_rate: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, gradients = self.gradients(*inputs)
        norm, applied = self.update(learning_rate, self.one, gradients)
        return loss, norm, applied


class _Accumulate(nn.Cell):
    """Add a micro-batch's gradients to the totals."""

    def __init__(self, gradients: Gradients, totals: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.totals = totals
        self.hyper_map = ops.HyperMap()

    def construct(self, *inputs: Tensor) -> Tensor:
        loss, gradients = self.gradients(*inputs)
        return ops.depend(loss, self.hyper_map(_accumulate, self.totals, gradients))


class _Apply(nn.Cell):
    """Update from the totals and clear them."""

    def __init__(self, update: _Update, totals: Sequence[Parameter], steps: int) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.totals = totals
        self.factor = Tensor(1.0 / steps, ms.float32)
        self.hyper_map = ops.HyperMap()

    def construct(self, learning_rate: Tensor) -> tuple[Tensor, Tensor]:
        norm, applied = self.update(learning_rate, self.factor, self.totals)
        norm = ops.depend(norm, self.hyper_map(_clear, self.totals))
        return norm, applied


class TrainStep:
    """Run optimisation steps.

    Args:
        loss: takes a micro-batch's arrays, returns a float32 scalar.
        optimizer: made with a constant learning rate.
        max_grad_norm: clip the global L2 norm of the gradients to this; None: no clipping.
        accumulation_steps: micro-batches per step; their gradients are averaged.
        loss_scaler: for float16; see `dynamic_loss_scaler`.

    Whether the cells are compiled depends on MindSpore's mode (graph or PyNative).
    """

    def __init__(
        self,
        loss: nn.Cell,
        optimizer: nn.Optimizer,
        *,
        max_grad_norm: float | None = None,
        accumulation_steps: int = 1,
        loss_scaler: ms.amp.DynamicLossScaler | None = None,
    ) -> None:
        weights.require_loaded(loss)
        gradients = Gradients(loss, optimizer.parameters, loss_scaler)
        update = _Update(optimizer, max_grad_norm, loss_scaler)
        self._optimizer = optimizer
        self._loss_scaler = loss_scaler
        self.accumulation_steps = accumulation_steps
        if accumulation_steps == 1:
            self._step = _Step(gradients, update)
            self._step.set_train()
        else:
            totals = zeros("accumulated", optimizer.parameters)
            self._accumulate = _Accumulate(gradients, totals)
            self._accumulate.set_train()
            self._apply = _Apply(update, totals, accumulation_steps)

    def compile(self, micro_batch: Sequence[np.ndarray]) -> nn.Cell:
        """Compile the step without running it. In graph mode.

        Args:
            micro_batch: arrays of the shapes to come.

        Returns:
            The cell that computes loss and gradients.
        """
        inputs = [Tensor(array) for array in micro_batch]
        if self.accumulation_steps == 1:
            self._step.compile(Tensor(0.0, ms.float32), *inputs)
            return self._step
        self._accumulate.compile(*inputs)
        self._apply.compile(Tensor(0.0, ms.float32))
        return self._accumulate

    def state(self) -> dict[str, Parameter]:
        """What a continued run needs besides the weights, by name: the optimizer's state, and the
        loss scale with its counter of finite steps. To be read, and written to, between steps.
        """
        trained = {id(parameter) for parameter in self._optimizer.parameters}
        state = {p.name: p for p in self._optimizer.get_parameters() if id(p) not in trained}
        if self._loss_scaler is not None:
            state["loss_scale"] = self._loss_scaler.scale_value
            state["loss_scale_counter"] = self._loss_scaler.counter
        return state

    @property
    def loss_scale(self) -> float | None:
        """What the next loss is multiplied by for its backward pass; None: it is not scaled."""
        if self._loss_scaler is None:
            return None
        return float(self._loss_scaler.scale_value.asnumpy())

    @loss_scale.setter
    def loss_scale(self, value: float) -> None:
        assert self._loss_scaler is not None
        self._loss_scaler.scale_value.set_data(Tensor(value, ms.float32))

    def __call__(
        self, micro_batches: Sequence[Sequence[np.ndarray]], learning_rate: float
    ) -> tuple[float, float, bool]:
        """One optimisation step.

        Args:
            micro_batches: `accumulation_steps` of them.
            learning_rate: rate of this update.

        Returns:
            Mean loss, gradient norm before clipping, and whether the update was applied.
        """
        if len(micro_batches) != self.accumulation_steps:
            raise ValueError(f"{len(micro_batches)} micro-batches, not {self.accumulation_steps}")
        rate = Tensor(learning_rate, ms.float32)
        if self.accumulation_steps == 1:
            loss, norm, applied = self._step(rate, *map(Tensor, micro_batches[0]))
            losses = [loss]
        else:
            losses = [self._accumulate(*map(Tensor, arrays)) for arrays in micro_batches]
            norm, applied = self._apply(rate)
        mean_loss = sum(float(loss) for loss in losses) / len(losses)
        return mean_loss, float(norm), bool(applied)
