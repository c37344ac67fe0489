"""Where a training step first produces a value that is not finite.

A step is one compiled graph, in which nobody can look. `diagnose` runs the loss once more in
PyNative mode and looks at all that goes into its cells and comes out of them, in the forward pass
and then in the backward pass. It is slow, and meant for a run that has given up.

    reason = diagnose(loss, micro_batch, loss.trainable_params(), loss_scale=65536.0)
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from launcher.training.precision.cast import name_of, to_float_dtype
from launcher.training.weights import as_float32

#: What the text begins with if nothing was.
NOTHING_FOUND = "Nothing was found"


def diagnose(
    loss: nn.Cell,
    inputs: Sequence[np.ndarray],
    parameters: Sequence[Parameter],
    loss_scale: float = 1.0,
) -> str:
    """Say where the first value that is not finite appears: in the inputs, the parameters, the
    forward pass or the backward pass.

    Nothing is updated. Afterwards, also if the loss raises, the hooks are gone and the mode is what
    it was; compiled graphs stay valid.

    Args:
        loss: takes a micro-batch's arrays, returns a scalar.
        inputs: the arrays.
        parameters: those that the gradients are for.
        loss_scale: what the loss is multiplied by before the backward pass.

    Returns:
        A few sentences for the user.
    """
    return (
        _in_inputs(loss, inputs)
        or _in_parameters(loss, parameters)
        or _in_step(loss, inputs, parameters, loss_scale)
    )


def _in_inputs(loss: nn.Cell, inputs: Sequence[np.ndarray]) -> str | None:
    arguments = inspect.signature(loss.construct).bind(*inputs).arguments
    for name, value in arguments.items():
        for array in value if isinstance(value, tuple) else [value]:  # a tuple: `*name`
            if array.dtype.kind not in "iub" and not np.isfinite(array).all():
                return f"The input {name} is not finite: {_count(array)}."
    return None


def _in_parameters(loss: nn.Cell, parameters: Sequence[Parameter]) -> str | None:
    for parameter in [*loss.get_parameters(), *parameters]:
        if not _all_finite(parameter):
            count = _count(as_float32(parameter))
            return f"The parameter {parameter.name} is not finite before the step: {count}."
    return None


def _in_step(
    loss: nn.Cell,
    inputs: Sequence[np.ndarray],
    parameters: Sequence[Parameter],
    loss_scale: float,
) -> str:
    tensors = [Tensor(array) for array in inputs]
    with _pynative_mode(), _casts_as_in_a_graph(loss), _watched(loss) as watch:
        # Without gradients first: it needs little memory, and shows most failures.
        value = float(loss(*tensors))
        if not np.isfinite(value):
            return watch.forward_report()
        watch.start_backward()
        backward = ms.value_and_grad(
            lambda *x: loss(*x) * loss_scale, None, weights=list(parameters)
        )
        scaled, gradients = backward(*tensors)
    if not np.isfinite(float(scaled)):
        return f"The loss ({value:.4g}) times the loss scale ({loss_scale:g}) is not finite."
    return watch.backward_report(value, loss_scale, parameters, gradients)


# -------------------------------------------------------------------------------------------
# Watching the cells
# -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A call of a cell that is under way.

    Attributes:
        arguments: as the caller gave them.
        cast: the parameters that are cast while it lasts, by the attribute's name.
    """

    cell: nn.Cell
    arguments: Any
    cast: dict[str, Tensor]


@dataclass(frozen=True)
class _Sighting:
    """The first value, or gradient, that is not finite.

    Attributes:
        text: what was seen, and where.
        depth: of a value: number of calls around the one that made it or that last returned what
            is not finite because of it.
        time: of a gradient: when its value was made in the forward pass.
    """

    text: str
    depth: int = 0
    time: int = 0


class _Watch:
    """What the hooks of a loss's cells see, in order of execution: the first sighting counts.

    A value that is not finite may vanish again (MindONE's FLUX blocks clip float16), so a sighting
    is dropped when a call around it returns finite values.
    """

    def __init__(self, loss: nn.Cell) -> None:
        self.loss = loss
        self.names = {id(cell): name for name, cell in _cells(loss)}
        self.calls: list[_Call] = []
        self.value: _Sighting | None = None
        self.vanished: _Sighting | None = None
        self.gradient: _Sighting | None = None
        self.looks_at_gradients = False
        self.clock = itertools.count()
        # When the forward pass went into a cell or out of it, and in the second case where to.
        self.passed: dict[tuple[int, str], tuple[int, nn.Cell | None]] = {}
        self.forward_is_over = False

    # ---------------------------------------------------------------------------------------
    # Hooks
    # ---------------------------------------------------------------------------------------

    def before(self, cell: nn.Cell, args: Any, kwargs: Any) -> Any:
        """Forward pre-hook; casts too, see `_casts_as_in_a_graph`."""
        given = (args, kwargs)
        if self.calls:
            caller = self.calls[-1]
            what = f"what {self._name(caller.cell)} passes to {self._name(cell)}"
            self._look(what, given, caller.arguments, depth=len(self.calls) - 1)
        arguments, cast = given, {}
        dtype = to_float_dtype(cell)
        if dtype is not None:
            arguments = _map(lambda x: x.astype(dtype), given)
            cast = _cast_parameters(cell, dtype)
            originals = [cell._params[name] for name in cast]
            where, depth = f"of {self._name(cell)} cast to {name_of(dtype)}", len(self.calls)
            self._look(f"an input {where}", arguments, given, depth)
            self._look(f"a parameter {where}", cast, originals, depth)
        self.calls.append(_Call(cell, given, cast))
        return self._watch_gradients(arguments, cell, "input")

    def after(self, cell: nn.Cell, args: Any, kwargs: Any, output: Any) -> Any:
        """Forward hook."""
        call = self.calls.pop()
        for name in call.cast:
            cell.__dict__.pop(name, None)
        depth = len(self.calls)
        if self.value is not None and depth < self.value.depth:
            self._follow(self.value, output, depth)
        has_parts = any(True for _ in cell.cells())
        what = f"the output of {self._name(cell)}"
        what += ", computed there and not in a sub-cell" if has_parts else ""
        self._look(what, output, call.arguments, depth)
        watched = self._watch_gradients(output, cell, "output")
        if not self.calls:
            self.forward_is_over = True
        return watched

    def _look(self, what: str, values: Any, inputs: Any, depth: int) -> None:
        if self.value is None and not self.looks_at_gradients and not _all_finite(values):
            largest = _largest_magnitude(inputs)
            went_in = "" if largest is None else f" What went in was finite, up to {largest:.3g}."
            self.value = _Sighting(f"{what}: {_first_bad(values)}.{went_in}", depth=depth)

    def _follow(self, value: _Sighting, output: Any, depth: int) -> None:
        """A call around a sighting has returned."""
        if _all_finite(output):
            self.vanished, self.value = self.vanished or value, None
        else:
            self.value = replace(value, depth=depth)

    def _watch_gradients(self, values: Any, cell: nn.Cell, side: Literal["input", "output"]) -> Any:
        """Aliases of `values` with backward hooks. An alias has the gradient of this use alone."""
        if not self.looks_at_gradients:
            return values
        if not self.forward_is_over:  # cells with gradient checkpointing run once more
            caller = self.calls[-1].cell if self.calls and side == "output" else None
            self.passed[id(cell), side] = next(self.clock), caller

        def hook(gradient: Any) -> None:
            if self.gradient is None and not _all_finite(gradient):
                time, caller = self.passed[id(cell), side]
                within = "" if caller is None else f", within {self._name(caller)}"
                self.gradient = _Sighting(
                    f"that of the {side} of {self._name(cell)}{within}: {_first_bad(gradient)}",
                    time=time,
                )

        return _map(ops.HookBackward(hook), values)

    # ---------------------------------------------------------------------------------------
    # Reports
    # ---------------------------------------------------------------------------------------

    def start_backward(self) -> None:
        """From now on look at gradients, not at values."""
        self.looks_at_gradients = True
        self.forward_is_over = False

    def forward_report(self) -> str:
        assert self.value is not None  # the loss itself is the output of a cell that is watched
        return f"The first value that is not finite is {self.value.text}{self._vanished_text()}"

    def backward_report(
        self,
        loss: float,
        loss_scale: float,
        parameters: Sequence[Parameter],
        gradients: Sequence[Tensor],
    ) -> str:
        bad = [p for p, gradient in zip(parameters, gradients) if not _is_finite(gradient)]
        if not bad:
            return (
                f"{NOTHING_FOUND}: the loss ({loss:.4g}) and, at a loss scale of "
                f"{loss_scale:g}, the gradients of all {len(parameters)} trained parameters are "
                "finite in a pass that runs operator by operator and so rounds differently from "
                f"the compiled step.{self._vanished_text()}"
            )
        return (
            f"The forward pass is finite (loss {loss:.4g}). At a loss scale of {loss_scale:g} the "
            f"first gradient that is not finite is {self._first_gradient(bad)}. In the end those "
            f"of {len(bad)} of {len(parameters)} trained parameters are not.{self._vanished_text()}"
        )

    def _vanished_text(self) -> str:
        if self.vanished is None:
            return ""
        return (
            " In the forward pass another value was not finite and vanished again, as when it is "
            f"clipped: {self.vanished.text}"
        )

    def _first_gradient(self, bad: Sequence[Parameter]) -> str:
        """What the hooks saw, unless the gradient of a weight overflows by itself in a cell that
        ran later, and so comes earlier in the backward pass."""
        times = {
            id(parameter): self.passed[id(cell), "input"][0]
            for _, cell in _cells(self.loss)
            if (id(cell), "input") in self.passed
            for parameter in cell.get_parameters(expand=False)
        }
        last = max(bad, key=lambda parameter: times.get(id(parameter), 0))
        if self.gradient is not None and self.gradient.time >= times.get(id(last), 0):
            return self.gradient.text
        return f"that of the parameter {last.name}"

    def _name(self, cell: nn.Cell) -> str:
        return f"{self.names[id(cell)] or 'the loss'} ({type(cell).__name__})"


def _cells(loss: nn.Cell) -> Iterator[tuple[str, nn.Cell]]:
    for name, cell in loss.cells_and_names():
        if "_recompute_cell" not in name:  # MindSpore's wrapper around a cell that is listed too
            yield name, cell


@contextmanager
def _watched(loss: nn.Cell) -> Iterator[_Watch]:
    watch = _Watch(loss)
    handles = []
    try:
        for _, cell in _cells(loss):
            handles.append(cell.register_forward_pre_hook(watch.before, with_kwargs=True))
            handles.append(cell.register_forward_hook(watch.after, with_kwargs=True))
        yield watch
    finally:
        for handle in handles:
            handle.remove()
        for call in watch.calls:  # those that were under way when the loss raised
            for name in call.cast:
                call.cell.__dict__.pop(name, None)


# -------------------------------------------------------------------------------------------
# Running as the graph does
# -------------------------------------------------------------------------------------------


@contextmanager
def _pynative_mode() -> Iterator[None]:
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


@contextmanager
def _casts_as_in_a_graph(loss: nn.Cell) -> Iterator[None]:
    """Keep PyNative mode from casting operator by operator in cells with `to_float`.

    A compiled graph casts a cell's inputs, and parameters where they are used. PyNative mode
    casts the inputs of every operator, also of those that a model computes in float32 on purpose:
    a mean of squares (RMSNorm) would overflow in float16 that does not in the graph. The hooks of
    `_Watch` cast in its stead.
    """
    types = [(cell, cell.mixed_precision_type) for _, cell in loss.cells_and_names()]
    try:
        for cell, _ in types:
            cell.mixed_precision_type = None
        yield
    finally:
        for cell, kind in types:
            cell.mixed_precision_type = kind


def _cast_parameters(cell: nn.Cell, dtype: Any) -> dict[str, Tensor]:
    """Put casts in the place of a cell's own parameters, until the attributes of these names are
    deleted. Gradients go through the casts."""
    cast = {
        name: parameter.astype(dtype)
        for name, parameter in cell._params.items()
        if parameter is not None and parameter.is_floating_point() and parameter.dtype != dtype
    }
    # An attribute of the instance comes before what Cell.__getattr__ finds.
    cell.__dict__.update(cast)
    return cast


# -------------------------------------------------------------------------------------------
# Tensors in the arguments and results of cells
# -------------------------------------------------------------------------------------------


def _map(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """`values` with `function` applied to the floating-point tensors in it."""
    if isinstance(values, Tensor):
        return function(values) if values.is_floating_point() else values
    if type(values) in (tuple, list):
        return type(values)(_map(function, value) for value in values)
    if isinstance(values, dict):  # and MindONE's ModelOutput, which copies its attributes
        mapped = copy.copy(values)
        for name, value in values.items():
            mapped[name] = _map(function, value)
        return mapped
    return values


def _tensors(values: Any) -> Iterator[Tensor]:
    """The floating-point tensors in `values`."""
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _all_finite(values: Any) -> bool:
    return all(_is_finite(tensor) for tensor in _tensors(values))


def _is_finite(tensor: Tensor) -> bool:
    if tensor.dtype == ms.bfloat16:  # which ops.isfinite does not take on the CPU
        tensor = tensor.astype(ms.float32)
    return bool(ops.isfinite(tensor).all())


def _first_bad(values: Any) -> str:
    """How much of the first tensor that is not finite is not."""
    tensor = next(tensor for tensor in _tensors(values) if not _is_finite(tensor))
    return f"{_count(as_float32(tensor))} in {name_of(tensor.dtype)}"


def _count(array: np.ndarray) -> str:
    return f"{np.count_nonzero(~np.isfinite(array))} of {array.size} values"


def _largest_magnitude(values: Any) -> float | None:
    """Of tensors that are all finite; None if there are none."""
    return max(
        (float(np.abs(as_float32(x)).max()) for x in _tensors(values) if x.size), default=None
    )
