"""Give parts the dtype that their parameters are stored in and the one that they compute in.

MindSpore separates the two: `Cell.to_float` sets what a cell and its children compute in, while
parameters keep the dtype they are stored in. What was asked for is noted on the cells, so that it
can be compared with what the compiled graph does (`report`).

On the CPU bfloat16 is emulated (`launcher.cpu.bf16`): parameters can be stored in it, tensors are
float32 and hold its values. float16 has real kernels everywhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

#: The names that `mixed_precision` takes, and the MindSpore dtypes they stand for.
_DTYPES = {"no": "float32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

#: Where the note is kept.
_ATTRIBUTE = "precision_asked"


def dtype_of(name: str) -> Any:
    """The MindSpore dtype for `no`, `fp32`, `fp16` or `bf16`."""
    import mindspore as ms

    return getattr(ms, _DTYPES[name])


def name_of(dtype: Any) -> str:
    """`float32` for MindSpore's Float32."""
    return str(dtype).lower()


@dataclass(frozen=True)
class Policy:
    """The dtypes of a run, as MindSpore's.

    Attributes:
        half: what networks and VAE compute in, and frozen ones are stored in.
        text_encoders: what these are stored and compute in.
        trained: what trained parameters are stored in.
        attention: what FLUX's attention computes in; None: in that of its part.
    """

    half: Any
    text_encoders: Any
    trained: Any
    attention: Any = None

    @classmethod
    def of(
        cls,
        mixed_precision: Literal["no", "fp16", "bf16"] = "no",
        text_encoders: Literal["fp32", "half"] = "fp32",
        trainable_params: Literal["fp32", "half"] = "fp32",
        attention: Literal["auto", "fp16", "bf16", "fp32"] = "auto",
    ) -> Policy:
        """From the options of the section `precision`."""

        def chosen(option: str) -> Any:
            return dtype_of(mixed_precision if option == "half" else option)

        return cls(
            half=dtype_of(mixed_precision),
            text_encoders=chosen(text_encoders),
            trained=chosen(trainable_params),
            attention=None if attention == "auto" else dtype_of(attention),
        )


@dataclass(frozen=True)
class Asked:
    """What was asked of a cell and of those in it that were not asked by themselves.

    Attributes:
        computation: dtype to compute in, by name.
        attention: dtype of its attention, by name.
        trained: whether trained parameters belong in it.
    """

    computation: str
    attention: str
    trained: bool


def asked(cell: Any) -> Asked | None:
    """What `cast_frozen` or `cast_trained` was last called with for this very cell."""
    return cell.__dict__.get(_ATTRIBUTE)


def apply(models: Any, policy: Policy) -> Any:
    """Cast parts with trained parameters as trained, and all others as frozen. The default of
    `apply_precision`.

    Args:
        models: a `hooks.types.Models`, whose parts know what is trained.

    Returns:
        The models.
    """
    for name, cell in models.cells().items():
        is_text_encoder = name.startswith("text_encoder")
        half = policy.text_encoders if is_text_encoder else policy.half
        attention = None if is_text_encoder or name == "vae" else policy.attention
        if cell.trainable_params():
            cast_trained(cell, policy.trained, half, attention=attention)
        else:
            cast_frozen(cell, half, attention=attention)
    return models


def cast_frozen(cell: Any, dtype: Any, *, attention: Any | None = None) -> Any:
    """Store a cell's frozen parameters in `dtype`, and let it compute in it. Returns the cell.

    Trained parameters in it are left alone: cast the cells that hold them with `cast_trained`
    afterwards.

    Args:
        attention: see `cast_trained`.
    """
    _compute_in(cell, dtype, attention, trained=False, cast=False)
    for parameter in cell.get_parameters():
        if not parameter.requires_grad:
            parameter.set_dtype(dtype)
    return cell


def cast_trained(
    cell: Any, parameters: Any, computation: Any, *, attention: Any | None = None
) -> Any:
    """Store all parameters of a cell in one dtype, and let it compute in another. Returns the cell.

    Args:
        parameters: float32, unless the optimizer is one for half precision
            (`optimizers.HALF_PRECISION_PARAMETERS`).
        computation: what inputs and parameters are cast to where they are used.
        attention: what the attention of this and all other diffusion models of MindONE computes
            in (`precision.attention`); None: in the dtype of its inputs.
    """
    _compute_in(cell, computation, attention, trained=True, cast=parameters != computation)
    for parameter in cell.get_parameters():
        parameter.set_dtype(parameters)
    return cell


def shrink(cell: Any) -> None:
    """Store all parameters of a cell in half precision, which it is not to be used in: what the
    article that this project starts from does to a model before it deletes it, so that less of it
    can stay behind in MindSpore's memory pool."""
    import mindspore as ms

    for parameter in cell.get_parameters():
        if parameter.dtype == ms.float32:
            parameter.set_dtype(ms.float16)


def signature(cell: Any) -> str:
    """What a cell is kept in and computes in, down to its last parameter: equal for two cells of
    one architecture if they were cast alike, and different otherwise. The name of a dtype if that
    is all there is to say, else a digest.
    """
    stored = {name: name_of(p.dtype) for name, p in cell.parameters_and_names()}
    computation: dict[str, str] = {}
    for path, part in cell.cells_and_names():
        if (dtype := to_float_dtype(part)) is not None:
            computation[path] = name_of(dtype)
        elif (note := asked(part)) is not None:
            computation[path] = note.computation
    dtypes = {*stored.values(), *computation.values()}
    if len(dtypes) == 1:
        return dtypes.pop()
    text = json.dumps([stored, computation], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compute_in(cell: Any, dtype: Any, attention: Any | None, *, trained: bool, cast: bool) -> None:
    """Emulate a dtype where it has to be, else cast operator by operator: if the parameters have
    another one, or where an earlier call asked for such casts."""
    from launcher.training import device

    if attention is not None:
        from launcher.training.precision.attention import attend_in

        attend_in(attention)
    if device.emulates(dtype):
        device.emulate_bf16(cell)
    elif cast or to_float_dtype(cell) is not None:
        cell.to_float(dtype)
    for _, part in cell.cells_and_names():
        part.__dict__.pop(_ATTRIBUTE, None)
    cell.__dict__[_ATTRIBUTE] = Asked(name_of(dtype), name_of(attention or dtype), trained)


def to_float_dtype(cell: Any) -> Any | None:
    """What `to_float` was told on a cell, if anything."""
    flags = cell.get_flags()
    return next((dtype_of(flag) for flag in ("fp16", "bf16", "fp32") if flags.get(flag)), None)


def activation_dtype(cell: Any) -> Any:
    """The dtype that a cell wants its inputs in: that of its own parameters (adapters come after
    them), or float32 where that dtype is emulated."""
    import mindspore as ms

    from launcher.training import device

    dtype = next(iter(cell.get_parameters())).dtype
    return ms.float32 if device.emulates(dtype) else dtype
