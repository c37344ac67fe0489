"""The network, and its loss as one cell."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops


class Denoiser(nn.Cell):
    """Predicts the noise in an image, as DnCNN does (Zhang et al., arXiv:1608.03981).

    The last layer starts at zero: an untrained denoiser predicts none.

    Args:
        width: channels of the hidden layers.
        depth: number of convolutions, at least 2.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Cell] = []
        for number in range(depth - 1):
            layers += [nn.Conv2d(width if number else 3, width, 3, has_bias=True), nn.ReLU()]
        zeros = dict(weight_init="zeros", bias_init="zeros")
        self.layers = nn.SequentialCell(*layers, nn.Conv2d(width, 3, 3, has_bias=True, **zeros))

    def construct(self, noisy: ms.Tensor) -> ms.Tensor:
        """`[B, 3, H, W]` both ways."""
        return self.layers(noisy)


class DenoisingLoss(nn.Cell):
    """Mean squared error of the predicted noise. Variants change `error`."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(auto_prefix=False)  # the denoiser's parameters keep their names
        self.denoiser = denoiser

    def construct(self, noisy: ms.Tensor, noise: ms.Tensor) -> ms.Tensor:
        """The arrays of a micro-batch, float32 `[B, 3, H, W]`; returns a float32 scalar."""
        # In float32, whatever the network computes in.
        return self.error(self.denoiser(noisy).astype(ms.float32) - noise)

    def error(self, difference: ms.Tensor) -> ms.Tensor:
        return ops.square(difference).mean()
