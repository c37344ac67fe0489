"""The VAE of a pipeline in a process of its own, which works on the CPU."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from flux_common import loading
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
            task="decodes the images of validations",
            way_out="Continue the run by --resume latest; validate fewer or smaller images, or set "
            "images.validation_vae=memory.",
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
