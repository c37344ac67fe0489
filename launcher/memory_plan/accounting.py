"""Bytes of parameters, gradients and optimizer state, from shapes and dtypes alone.

What is small in every run is left out (loss scale, learning rate, keys of the stochastic rounding),
and so is what need not exist for more than one tensor at a time: the gradient in float32, clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

#: ZeRO stages: 1 divides the optimizer's state among the devices, 2 the gradients too, 3 the
#: parameters too.
ZERO_STAGES = (0, 1, 2, 3)

BYTES: Mapping[str, int] = {
    "float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int8": 1,
    "uint8": 1, "bool": 1,
}  # fmt: skip
_FLOAT32 = BYTES["float32"]


@dataclass(frozen=True)
class Weight:
    """A parameter.

    Attributes:
        part: the part of the model that it belongs to.
        shape: its shape.
        dtype: what it is kept in, a key of `BYTES`.
        trained: whether it has a gradient and optimizer state.
        computes_in: what it is cast to where it is used; None: it is used as it is kept.
    """

    part: str
    shape: tuple[int, ...]
    dtype: str
    trained: bool = False
    computes_in: str | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes."""
        return self.size * BYTES[self.dtype]


@dataclass(frozen=True)
class Part:
    """The parameters of a part that have one dtype and one fate.

    Attributes:
        name: of the part.
        size: number of elements.
        dtype: what they are kept in.
        trained: whether they are trained.
        bytes: what they take.
    """

    name: str
    size: int
    dtype: str
    trained: bool
    bytes: int


def parts(weights: Iterable[Weight]) -> list[Part]:
    """Parameters summed by part, dtype and whether they are trained, in the order of the parts."""
    sums: dict[tuple[str, str, bool], tuple[int, int]] = {}
    for weight in weights:
        key = (weight.part, weight.dtype, weight.trained)
        size, count = sums.get(key, (0, 0))
        sums[key] = (size + weight.size, count + weight.bytes)
    return [
        Part(name, size, dtype, trained, count)
        for (name, dtype, trained), (size, count) in sums.items()
    ]


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while a step runs.

    Attributes:
        parameters: as they are kept.
        copies: trained parameters in the dtype that they compute in, where that is another one. The
            forward pass makes them and the backward pass needs them again.
        gradients: of the trained parameters, in their dtype; with gradient accumulation the
            float32 totals as well.
        optimizer: its state.
        activations: what the backward pass needs of the forward pass, an estimate; None: unknown.
        encoders: those of the first stage, where they are kept.
        averages: the moving average of what is trained, in float32.
    """

    parameters: float
    copies: float
    gradients: float
    optimizer: float
    activations: float | None = None
    encoders: float = 0
    averages: float = 0

    @property
    def total(self) -> float:
        """All of it, as far as it is known."""
        known = (
            self.parameters, self.copies, self.gradients, self.optimizer, self.encoders,
            self.averages,
        )  # fmt: skip
        return sum(known) + (self.activations or 0)

    def divided(self, stage: int, devices: int) -> Memory:
        """What is left on each device with a stage of ZeRO.

        Activations, encoders and averages are not divided.

        In stage 3 the frozen parameters are divided too, as MindONE's implementation does.
        """
        of_optimizer, of_gradients, of_parameters = (
            devices if stage >= least else 1 for least in (1, 2, 3)
        )
        return replace(
            self,
            parameters=self.parameters / of_parameters,
            copies=self.copies / of_parameters,
            gradients=self.gradients / of_gradients,
            optimizer=self.optimizer / of_optimizer,
        )


def training_memory(
    weights: Iterable[Weight],
    state: Callable[[Weight], float],
    *,
    accumulation_steps: int = 1,
    activations: float | None = None,
    encoders: float = 0,
    averaged: bool = False,
) -> Memory:
    """What a training step takes on one device by itself.

    Args:
        weights: all parameters that are in memory while it runs.
        state: bytes of the optimizer's state for one trained parameter.
        accumulation_steps: micro-batches per update.
        activations: their estimate.
        encoders: bytes of the encoders, where they are kept.
        averaged: whether there is a moving average of what is trained.
    """
    weights = list(weights)
    trained = [weight for weight in weights if weight.trained]
    gradients = sum(weight.bytes for weight in trained)
    if accumulation_steps > 1:
        gradients += sum(weight.size * _FLOAT32 for weight in trained)
    return Memory(
        parameters=sum(weight.bytes for weight in weights),
        copies=sum(
            weight.size * BYTES[weight.computes_in]
            for weight in trained
            if weight.computes_in not in (None, weight.dtype)
        ),
        gradients=gradients,
        optimizer=sum(map(state, trained)),
        activations=activations,
        encoders=encoders,
        averages=sum(weight.size * _FLOAT32 for weight in trained) if averaged else 0,
    )


def _two_moments(weight: Weight) -> int:
    return 2 * weight.size * _FLOAT32


def _two_moments_and_master(weight: Weight) -> int:
    master = 0 if weight.dtype == "float32" else weight.size * _FLOAT32
    return _two_moments(weight) + master


def _factored(weight: Weight) -> int:
    """CAME: of the squares and of the residuals, a row and a column each, over the last two
    dimensions; vectors have both moments."""
    if len(weight.shape) < 2:
        return _two_moments(weight)
    *others, rows, columns = weight.shape
    return (weight.size + 2 * math.prod(others) * (rows + columns)) * _FLOAT32


def _momentum(weight: Weight) -> int:
    """Muon: one average for a matrix, AdamW's moments for anything else."""
    return weight.size * _FLOAT32 if len(weight.shape) == 2 else _two_moments(weight)


#: Bytes of state for one trained parameter, of the launcher's own optimizers
#: (`launcher.training.optimizers`), by `optimizer.name`.
STATE: Mapping[str, Callable[[Weight], int]] = {
    "adamw": _two_moments,
    "adam_weight_decay": _two_moments,
    "adamw_bf16": _two_moments_and_master,
    "adamw_upcast": _two_moments,
    "came": _factored,
    "muon": _momentum,
}
