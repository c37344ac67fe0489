"""Make the optimizer that `optimizer.name` names; `optimizers` holds them."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, nn

from launcher.training.errors import UserError
from launcher.training.optimizers import HALF_PRECISION_PARAMETERS
from launcher.training.optimizers.adamw import AdamW
from launcher.training.optimizers.adamw_bf16 import AdamWBF16
from launcher.training.optimizers.adamw_upcast import AdamWUpcast
from launcher.training.optimizers.came import CAME
from launcher.training.optimizers.muon import Muon

__all__ = ["AdamW", "build_optimizer"]


def build_optimizer(
    name: str,
    parameters: list[Parameter],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    came_beta3: float = 0.9999,
    muon_momentum: float = 0.95,
    stochastic_rounding: bool = False,
    seed: int = 0,
) -> nn.Optimizer:
    """Make an optimizer by name.

    Args:
        name: `adamw`, `adamw_bf16`, `adamw_upcast`, `came`, `muon` (see `optimizers`), or
            `adam_weight_decay` (`mindspore.nn`: no bias correction; decays neither parameters
            called beta nor gamma).
        parameters: what to train.
        beta1, beta2, eps, weight_decay: as usual for Adam; CAME has no such eps.
        came_beta3: decay of CAME's residuals.
        muon_momentum: decay of Muon's average gradient.
        stochastic_rounding: how `adamw_upcast` rounds; with another name an error.
        seed: of the stochastic rounding.

    Raises:
        UserError: a parameter is not float32, and the optimizer updates in the parameter's own
            dtype, in which half precision loses small updates.
    """
    if stochastic_rounding and name != "adamw_upcast":
        raise ValueError(f"stochastic_rounding is for adamw_upcast, not {name!r}")
    wrong = [p.name for p in parameters if p.dtype != ms.float32]
    if wrong and name not in HALF_PRECISION_PARAMETERS:
        raise UserError(
            f"optimizer {name!r} updates parameters in their own dtype and needs float32, but "
            f"{len(wrong)} of {len(parameters)} trainable parameters are not (first: "
            f"{wrong[0]}). Keep trainable parameters in float32 in apply_precision, or set "
            f"optimizer.name to {' or '.join(HALF_PRECISION_PARAMETERS)}."
        )
    # The rate is a placeholder: the step assigns the scheduled one before each update.
    rate, betas = 1.0, (beta1, beta2)
    if name == "adamw":
        return AdamW(parameters, rate, *betas, eps, weight_decay)
    if name == "adamw_bf16":
        return AdamWBF16(parameters, rate, *betas, eps, weight_decay)
    if name == "adamw_upcast":
        return AdamWUpcast(parameters, rate, *betas, eps, weight_decay, stochastic_rounding, seed)
    if name == "came":
        return CAME(parameters, rate, *betas, came_beta3, weight_decay)
    if name == "muon":
        return Muon(parameters, rate, muon_momentum, *betas, eps, weight_decay)
    if name == "adam_weight_decay":
        return nn.AdamWeightDecay(parameters, rate, *betas, eps, weight_decay)
    raise ValueError(f"no optimizer named {name!r}")
