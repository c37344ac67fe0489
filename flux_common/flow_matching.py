"""Flow matching as FLUX.1 is trained: timesteps, sigmas and the weight of the loss.

The noisy input at noise level sigma is `(1 - sigma) * latents + sigma * noise`, and the model
predicts the velocity `noise - latents` (Lipman et al. 2022; Esser et al. 2024, section 2).
Everything here runs on the host in numpy: it is B numbers a step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

WeightingScheme = Literal["none", "logit_normal", "mode", "cosmap", "sigma_sqrt"]


def sample_density(
    uniform: np.ndarray,
    scheme: WeightingScheme,
    *,
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    mode_scale: float = 1.29,
) -> np.ndarray:
    """Map uniform draws to the position `u` in the table of timesteps.

    Args:
        uniform: float64 `[B]` in [0, 1).
        scheme: `logit_normal` and `mode` shape the density (Esser et al. 2024, section 3.1,
            equations 19 and 20); the others are uniform, and `cosmap` and `sigma_sqrt` weight
            the loss instead (`loss_weights`).
        logit_mean, logit_std: location and scale of `logit_normal`.
        mode_scale: scale `s` of `mode`.

    Returns:
        float64 `[B]` in [0, 1]. Position 0 is the noisiest timestep.
    """
    import numpy as np

    if scheme == "logit_normal":
        from statistics import NormalDist

        # A draw of exactly 0 has no finite normal quantile; the smallest positive double does.
        quantile = NormalDist(logit_mean, logit_std).inv_cdf
        normal = np.array([quantile(max(p, 5e-324)) for p in uniform])
        return 1.0 / (1.0 + np.exp(-normal))
    if scheme == "mode":
        return 1 - uniform - mode_scale * (np.cos(math.pi * uniform / 2) ** 2 - 1 + uniform)
    return uniform


def timestep_indices(u: np.ndarray, num_train_timesteps: int) -> np.ndarray:
    """int64 `[B]`: rows of the timestep table for positions `u`.

    `mode` reaches u = 1 exactly (at a draw of 0), whose row lies one past the table; it is
    taken to the last row.
    """
    import numpy as np

    return np.minimum((u * num_train_timesteps).astype(np.int64), num_train_timesteps - 1)


def loss_weights(sigmas: np.ndarray, scheme: WeightingScheme) -> np.ndarray:
    """float32 `[B]`: the weight of each sample's squared error.

    `sigma_sqrt` weights by `sigma**-2` and `cosmap` by `2 / (pi * (1 - 2 sigma + 2 sigma**2))`
    (Esser et al. 2024, section 3.1, as in diffusers' `compute_loss_weighting_for_sd3`); the
    schemes that shape the density weight every sample by 1.
    """
    import numpy as np

    sigmas = sigmas.astype(np.float64)
    if scheme == "sigma_sqrt":
        weights = sigmas**-2.0
    elif scheme == "cosmap":
        weights = 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    else:
        weights = np.ones_like(sigmas)
    return weights.astype(np.float32)
