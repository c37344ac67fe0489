"""Choosing the device and the execution mode."""

from __future__ import annotations

import functools
import importlib.util
import resource
from collections.abc import Callable
from typing import Any

from launcher.training import in_place, sizes_only
from launcher.training.errors import UserError
from launcher.training.on_demand import import_on_demand


def set_up(device: str, device_id: int, mode: str) -> str:
    """Make a device and a mode MindSpore's own, before anything is imported of MindONE or compiled.

    From then on, `x += y` in what is compiled makes a new tensor of `x`'s dtype and changes none in
    place (see `in_place`), and of MindONE's transformers only what is used is imported (see
    `on_demand`).

    Args:
        device: `auto` (Ascend where there is one, else CPU), `Ascend` or `CPU`.
        device_id: which NPU.
        mode: `graph` or `pynative`.

    Returns:
        `Ascend` or `CPU`.

    Raises:
        UserError: Ascend is asked for and there is none, or not that many; or an NPU is chosen
            by number, and the device is the CPU.
    """
    import mindspore as ms

    npus = _npu_count()
    chosen = device if device != "auto" else ("Ascend" if npus else "CPU")
    if chosen == "Ascend" and npus == 0:
        raise UserError(
            "runtime.device is Ascend, but MindSpore finds no Ascend NPU on this machine. "
            "Check the driver and CANN (`npu-smi info` must list the device), or set "
            "runtime.device=CPU to run, slowly, without one."
        )
    if chosen == "CPU" and device_id != 0:
        why = "is CPU" if device == "CPU" else f"is {device} and MindSpore finds no Ascend NPU here"
        raise UserError(
            f"runtime.device_id is {device_id}, which chooses an NPU, but runtime.device {why}. "
            "Leave runtime.device_id out."
        )
    if chosen == "Ascend" and device_id >= npus:
        raise UserError(
            f"runtime.device_id is {device_id}, but this machine has {npus} NPUs; give a number "
            f"from 0 to {npus - 1}."
        )
    if chosen == "Ascend":
        ms.set_device("Ascend", device_id)
    else:
        ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    in_place.compile_as_plain()
    if importlib.util.find_spec("mindone") is not None:
        import_on_demand("mindone.transformers")
        import_on_demand("mindone.transformers.models")
    return chosen


def chosen() -> str:
    """The device that MindSpore uses: `Ascend` or `CPU`."""
    import mindspore as ms

    return str(ms.get_context("device_target"))


def memory_in_use() -> int:
    """Bytes: of the NPU's memory, as MindSpore has handed it out; on the CPU, of the process, which
    is resident in memory."""
    import mindspore as ms

    if not _on_cpu():
        return int(ms.runtime.memory_allocated())
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@functools.cache  # once: what `attend_in` puts in place afterwards is to stay
def supply_what_lacks() -> None:
    """On the CPU, put equivalents in the place of what MindSpore lacks there (`launcher.cpu`).

    To be called before a model is built, by a recipe whose models need it: those of MindONE, and
    others of `mindspore.mint`. On an NPU it only keeps attention in the dtype of its inputs (see
    `launcher.training.precision.attention`). Imports MindONE, which takes seconds.
    """
    if _on_cpu():
        import launcher.cpu

        launcher.cpu.install()
    else:
        from launcher.training.precision.attention import attend_in

        attend_in(None)


def prepare_recomputation() -> None:
    """On the CPU, let the substitutes' gradients be such that blocks can be recomputed."""
    if _on_cpu():
        from launcher.cpu import gradients

        gradients.written_out = False


def attention_for(dtype: Any | None) -> Callable[..., Any]:
    """A `scaled_dot_product_attention` for this device, with the arguments of PyTorch's.

    Args:
        dtype: of the inputs that it will be given; None: of any.
    """
    if _on_cpu():
        import launcher.cpu

        return launcher.cpu.attention_for(dtype)
    from launcher.training.precision.npu_attention import attention_for as npu

    return npu(dtype)


def emulates(dtype: Any) -> bool:
    """Whether computing in a dtype has to be emulated on this device: bfloat16 on the CPU."""
    import mindspore as ms

    return bool(dtype == ms.bfloat16) and _on_cpu() and not sizes_only.is_wanted()


def emulate_bf16(cell: Any) -> None:
    """Let a cell compute as in bfloat16, on the CPU; see `launcher.cpu.bf16`.

    Raises:
        UserError: it has parameters whose use is not known there.
    """
    from launcher.cpu import bf16

    try:
        bf16.emulate(cell)
    except bf16.UnsupportedCellError as error:
        raise UserError(
            f"precision.mixed_precision is bf16, which is emulated on the CPU, and {error} has "
            "parameters of its own and no emulation. Set precision.mixed_precision=no, or fp16, "
            "or build that cell from layers of mindspore.nn and mindspore.mint.nn; "
            "launcher/cpu/bf16.py lists those that are known."
        ) from error


def is_emulated(cell: Any) -> bool:
    """Whether a cell, or a part of it, was given to `emulate_bf16`."""
    return any(hasattr(part, "emulates_bf16") for _, part in cell.cells_and_names())


def _on_cpu() -> bool:
    import mindspore as ms

    return bool(ms.get_context("device_target") == "CPU")


def _npu_count() -> int:
    """Number of Ascend NPUs that MindSpore can use."""
    import mindspore as ms

    ascend = ms.device_context.ascend
    if not ascend.is_available():
        return 0
    return int(ascend.device_count())
