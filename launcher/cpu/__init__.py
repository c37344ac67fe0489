"""What MindSpore's CPU backend lacks to run FLUX, supplied.

MindONE's FLUX transformer, FLUX ControlNet, ``AutoencoderKL``, ``CLIPTextModel`` and
``T5EncoderModel`` are written for Ascend. On the CPU some of the operations they call have no
kernel, a few are inaccurate, and a few are many times slower than an equivalent expression.
:func:`install` puts equivalents in their place, in graph mode and PyNative, forward and backward,
in float32 and float16. :mod:`launcher.cpu.substitutes` lists every one of them with its reason.

Call it once, on the CPU only, before a model is built::

    import mindspore as ms
    from launcher.cpu import install

    ms.set_device("CPU")
    install()

Importing this package imports neither MindSpore nor MindONE; :func:`install` imports both.
"""

from collections.abc import Callable
from typing import Any

from launcher.training.patching import UnsupportedVersionError


def install() -> None:
    """Put every substitute of :data:`launcher.cpu.substitutes.SUBSTITUTES` in place.

    A second call does nothing. Models built before the call keep working, but names they had
    already stored (an activation function bound in ``__init__``, say) are not followed.

    Raises:
        UnsupportedVersionError: a name to be replaced does not exist in the installed MindSpore or
            MindONE. Nothing has been replaced then.
    """
    from launcher.cpu.substitutes import SUBSTITUTES
    from launcher.training.patching import apply

    apply(SUBSTITUTES)


def attention_for(dtype: Any | None) -> Callable[..., Any]:
    """The `scaled_dot_product_attention` for inputs of a dtype.

    Args:
        dtype: a MindSpore dtype; None: any, and models given to `bf16.emulate` later attend in
            bfloat16. Otherwise they use what stands in MindONE's place.
    """
    import mindspore as ms

    from launcher.cpu import bf16
    from launcher.cpu.attention import scaled_dot_product_attention

    bf16.emulates_attention = dtype is None
    return bf16.attend if dtype == ms.bfloat16 else scaled_dot_product_attention


__all__ = ["UnsupportedVersionError", "attention_for", "install"]
