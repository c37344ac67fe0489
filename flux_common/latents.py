"""VAE latents as FLUX.1 takes them: posterior moments, sampling, packing, position ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.training.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# Posterior log-variances are clamped to this range before use (DiagonalGaussianDistribution
# of the latent diffusion code base).
_LOGVAR_RANGE = (-30.0, 20.0)


def encode_moments(vae: Any, pixels: np.ndarray) -> np.ndarray:
    """Encode images into the moments of their posterior.

    Args:
        vae: an `AutoencoderKL`; images are cast to the dtype of its parameters.
        pixels: float32 `[B, 3, H, W]` in [-1, 1].

    Returns:
        float32 `[B, 2 * latent_channels, H / 8, W / 8]`: mean, then log-variance.
    """
    import mindspore as ms

    # mindone's `encode` returns the moments themselves, not a distribution.
    moments = vae.encode(ms.Tensor(pixels).astype(vae.dtype), return_dict=False)[0]
    return moments.astype(ms.float32).asnumpy()


def sample_posterior(moments: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Draw latents from a posterior: `mean + exp(logvar / 2) * eps`.

    Args:
        moments: float32 `[B, 2C, h, w]`, mean then log-variance.
        eps: float32 `[B, C, h, w]`, standard normal.

    Returns:
        float32 `[B, C, h, w]`.
    """
    import numpy as np

    mean, logvar = np.split(moments, 2, axis=1)
    return mean + np.exp(0.5 * np.clip(logvar, *_LOGVAR_RANGE)) * eps


def normalise(latents: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """`(latents - shift) * scale`: to about unit variance, as the transformer was trained."""
    return (latents - shift) * scale


def pack(latents: np.ndarray) -> np.ndarray:
    """Fold 2x2 patches of latents into tokens.

    Args:
        latents: `[B, C, h, w]`, h and w even.

    Returns:
        `[B, h/2 * w/2, 4C]`: row-major patches; within a token channel, then row, then column.
    """
    b, c, h, w = latents.shape
    patches = latents.reshape(b, c, h // 2, 2, w // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    return patches.reshape(b, h // 2 * (w // 2), c * 4)


def unpack(packed: np.ndarray, height: int, width: int) -> np.ndarray:
    """The inverse of `pack`: `[B, height/2 * width/2, 4C]` to `[B, C, height, width]`."""
    b, _, channels = packed.shape
    patches = packed.reshape(b, height // 2, width // 2, channels // 4, 2, 2)
    return patches.transpose(0, 3, 1, 4, 2, 5).reshape(b, channels // 4, height, width)


class NotFiniteError(UserError):
    """An image came out as numbers that are not finite."""


def decode(vae: Any, latents: np.ndarray) -> np.ndarray:
    """Decode normalised latents `[B, C, h, w]` to uint8 images `[B, 8h, 8w, 3]`.

    Raises:
        NotFiniteError: there is nothing to be seen.
    """
    import mindspore as ms
    import numpy as np

    latents = latents / vae.config.scaling_factor + vae.config.shift_factor
    pixels = vae.decode(ms.Tensor(latents.astype(np.float32)).astype(vae.dtype))[0]
    values = pixels.astype(ms.float32).asnumpy().transpose(0, 2, 3, 1)
    if not np.isfinite(values).all():
        raise NotFiniteError(
            "an image came out as numbers that are not finite: the weights are not, or numbers "
            "grew too large on the way. Try a smaller scale of the control, or, if it computes in "
            "fp16, precision.mixed_precision=bf16."
        )
    return np.rint((np.clip(values, -1, 1) + 1) * 127.5).astype(np.uint8)


def image_ids(height: int, width: int) -> np.ndarray:
    """Positions of the packed latents for the rotary embedding.

    Args:
        height, width: size of the packed grid (h/2, w/2).

    Returns:
        float32 `[height * width, 3]`: zero, row, column.
    """
    import numpy as np

    ids = np.zeros((height, width, 3), dtype=np.float32)
    ids[..., 1] = np.arange(height)[:, None]
    ids[..., 2] = np.arange(width)[None, :]
    return ids.reshape(-1, 3)


def text_ids(length: int) -> np.ndarray:
    """float32 `[length, 3]` of zeros: text tokens have no position."""
    import numpy as np

    return np.zeros((length, 3), dtype=np.float32)
