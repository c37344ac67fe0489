"""Sinusoidal timestep embedding with its frequencies from a table."""

import math

import mindspore as ms
import numpy as np
from mindspore import ops
from mindspore.ops import constexpr


@constexpr
def _frequencies(half, downscale_freq_shift, scale, max_period):
    """``[1, half]`` float32.

    The exponents are rounded to float32 as in diffusers; the exponential is computed in float64
    and rounded once. The CPU's own ``exp`` is off by 1.5e-6, times a timestep of 1000 that is a
    phase error of 1e-3.
    """
    exponents = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32)
    exponents = exponents / np.float32(half - downscale_freq_shift)
    return ms.Tensor(scale * np.exp(exponents.astype(np.float64))[None], ms.float32)


def get_timestep_embedding(
    timesteps,
    embedding_dim,
    flip_sin_to_cos=False,
    downscale_freq_shift=1,
    scale=1,
    max_period=10000,
):
    """``mindone.diffusers.models.embeddings.get_timestep_embedding``.

    Args:
        timesteps: ``[n]``, may be fractional.

    Returns:
        ``[n, embedding_dim]`` float32 (Ho et al., arXiv:2006.11239; sines first, or cosines first
        with ``flip_sin_to_cos``; a zero column ends an odd ``embedding_dim``).
    """
    half = embedding_dim // 2
    frequencies = _frequencies(half, downscale_freq_shift, scale, max_period)
    angles = timesteps.astype(ms.float32).reshape((-1, 1)) * frequencies
    first, second = ops.sin(angles), ops.cos(angles)
    if flip_sin_to_cos:
        first, second = second, first
    if embedding_dim % 2 == 1:
        zero = ops.zeros((timesteps.shape[0], 1), ms.float32)
        return ops.concat((first, second, zero), -1)
    return ops.concat((first, second), -1)
