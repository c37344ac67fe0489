"""What an autoencoder's training minimises."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops


class AutoencoderLoss(nn.Cell):
    """Mean squared error of the image, and the divergence of its latents.

    `mean (x' - x)**2 + kl_weight * mean(m**2 + s**2 - 1 - log s**2) / 2` for an image `x` that is
    decoded as `x'` from a draw of the normal distribution of mean `m` and standard deviation `s`
    (Kingma and Welling, arXiv:1312.6114, appendix B). Both means are over all elements.

    Args:
        vae: an `AutoencoderKL` without `quant_conv`, as FLUX.1's.
    """

    def __init__(self, vae: Any, kl_weight: float) -> None:
        super().__init__(auto_prefix=False)  # the autoencoder's parameters keep their names
        self.encoder = vae.encoder
        self.decoder = vae.decoder
        self.kl_weight = kl_weight

    def construct(self, images: Tensor, noise: Tensor) -> Tensor:
        """float32 scalar, of `images` `[B, 3, H, W]` in [-1, 1] and standard normal `noise`
        `[B, C, H/8, W/8]`."""
        mean, logvar = ops.chunk(self.encoder(images), 2, axis=1)
        logvar = ops.clamp(logvar, -30.0, 20.0)  # as when images are encoded
        decoded = self.decoder(mean + ops.exp(0.5 * logvar) * noise)
        divergence = 0.5 * (ops.square(mean) + ops.exp(logvar) - 1.0 - logvar).mean()
        return ops.square(decoded - images).mean() + self.kl_weight * divergence
