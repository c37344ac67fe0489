"""Pseudo-Huber loss in place of the squared error: outliers pull less.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/huber_loss.py

`2 C (sqrt(error^2 + C^2) - C)` as in Khrapov et al., arXiv:2403.16728: the squared error where it
is small against C, `2 C |error|` where it is large.
"""

from mindspore import ops

from flux_common.config import network_inputs
from flux_controlnet_plugin.loss import FluxControlNetLoss
from hooks import hookimpl

C = 0.1


class HuberLoss(FluxControlNetLoss):
    """The recipe's loss with another measure of the error."""

    def error(self, prediction, latents, noise, weights):
        error = prediction.astype("float32") - (noise - latents)
        huber = 2 * C * (ops.sqrt(ops.square(error) + C * C) - C)
        return (weights.reshape((-1, 1, 1)) * huber).mean()


@hookimpl
def build_loss(config, models):
    inputs = network_inputs(config.data, config.loss)
    return HuberLoss(models["controlnet"], models["transformer"], **inputs)
