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

from launcher.cpu.patching import UnsupportedVersionError


def install() -> None:
    """Put every substitute of :data:`launcher.cpu.substitutes.SUBSTITUTES` in place.

    A second call does nothing. Models built before the call keep working, but names they had
    already stored (an activation function bound in ``__init__``, say) are not followed.

    Raises:
        UnsupportedVersionError: a name to be replaced does not exist in the installed MindSpore or
            MindONE. Nothing has been replaced then.
    """
    from launcher.cpu.patching import apply
    from launcher.cpu.substitutes import SUBSTITUTES

    apply(SUBSTITUTES)


__all__ = ["UnsupportedVersionError", "install"]
