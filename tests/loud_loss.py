"""A variant whose loss is FACTOR times as large, so that fp16's gradients overflow."""

import os

from flux_common.config import network_inputs
from flux_controlnet_plugin.loss import FluxControlNetLoss
from hooks import hookimpl


class LoudLoss(FluxControlNetLoss):
    factor = 1.0

    def error(self, prediction, latents, noise, weights):
        return self.factor * super().error(prediction, latents, noise, weights)


@hookimpl
def build_loss(config, models):
    inputs = network_inputs(config.data, config.loss)
    loss = LoudLoss(models["controlnet"], models["transformer"], **inputs)
    loss.factor = float(os.environ["FACTOR"])
    return loss
