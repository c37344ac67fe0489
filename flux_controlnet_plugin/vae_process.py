"""The VAE of a pipeline where there is room for it: if need be, in a process on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from flux_common import loading
from launcher.training import device_memory
from launcher.training.helper import Helper

if TYPE_CHECKING:
    import numpy as np


class VaeProcess:
    """Stands for an `AutoencoderKL` where images are made (`flux_controlnet_plugin.images`).

    It computes in float32; what it hands back has the dtype of the training's networks.

    Args:
        section: the configuration's `model`.
        precision: the configuration's `precision`.

    Raises:
        UserError: of the methods: the process was killed.
    """

    def __init__(self, section: Any, precision: Any) -> None:
        from launcher.training.precision import dtype_of

        with loading.quiet():
            from mindone.diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        self.dtype = dtype_of(precision.mixed_precision)
        self.diag_gauss_dist = DiagonalGaussianDistribution()
        self._helper = Helper(
            _Vae,
            (section.pretrained_model_name_or_path, section.revision, section.variant),
            task="encodes and decodes images",
            way_out="Make fewer or smaller images.",
        )
        self.config = SimpleNamespace(**self._helper.call("config"))

    def encode(self, pixels: Any) -> tuple[Any]:
        """Moments `[B, 2C, h, w]` of images `[B, 3, 8h, 8w]`, as `AutoencoderKL.encode`."""
        return (self._run("encode", pixels),)

    def decode(self, latents: Any) -> tuple[Any]:
        """Images `[B, 3, 8h, 8w]` of latents `[B, C, h, w]`, as `AutoencoderKL.decode`."""
        return (self._run("decode", latents),)

    def _run(self, name: str, tensor: Any) -> Any:
        import mindspore as ms

        array = self._helper.call("run", name, tensor.astype(ms.float32).asnumpy())
        return ms.Tensor(array).astype(self.dtype)


class MovableVae:
    """Stands for an `AutoencoderKL`, which it has in memory until that does not suffice.

    What a VAE holds while it decodes grows with the image: some gigabytes for one of 1024 x 1024. A
    training that just fits leaves less. From then on, a `VaeProcess` does the work.

    Args:
        section: the configuration's `model`.
        precision: the configuration's `precision`.
        on_move: told, in a sentence without a full stop, that it has moved.
    """

    def __init__(self, section: Any, precision: Any, on_move: Callable[[str], object]) -> None:
        from flux_controlnet_plugin.images import load_vae

        self._vae = load_vae(section, precision)
        self._move: Callable[[], Any] | None = lambda: VaeProcess(section, precision)
        self._on_move = on_move

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pixels: Any) -> tuple[Any]:
        """See `VaeProcess.encode`."""
        return self._run("encode", pixels)

    def decode(self, latents: Any) -> tuple[Any]:
        """See `VaeProcess.decode`."""
        return self._run("decode", latents)

    def _run(self, name: str, tensor: Any) -> tuple[Any]:
        try:
            (result,) = getattr(self._vae, name)(tensor)
            result.asnumpy()  # errors of an NPU come when something waits for it
            return (result,)
        except (RuntimeError, MemoryError) as error:
            if self._move is None or not device_memory.is_exhausted(error):
                raise
        # Outside of `except`: the error's traceback holds what was being computed.
        self._vae, self._move = self._move(), None
        self._on_move("the VAE has no room beside the networks, and works on the CPU from now on")
        return self._run(name, tensor)


class _Vae:
    """In the process."""

    def __init__(self, path: str, revision: str | None, variant: str | None) -> None:
        from launcher.training import device

        # What the libraries warn of, the launcher's process has seen already.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        device.set_up("CPU", 0, "graph")
        self._vae = loading.load_vae(path, revision=revision, variant=variant)

    def config(self) -> dict[str, Any]:
        return dict(self._vae.config)

    def run(self, name: str, array: np.ndarray) -> np.ndarray:
        """What the method of this name returns, both in float32."""
        import mindspore as ms

        method = getattr(self._vae, name)
        result: np.ndarray = method(ms.Tensor(array), return_dict=False)[0].asnumpy()
        return result
