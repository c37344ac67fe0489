"""What the tests compile besides the loss itself; apart, since it needs MindSpore."""

from mindspore import nn

from flux_common.velocity import add_noise


class Predict(nn.Cell):
    """What a `FluxLoraLoss` predicts for its own arguments."""

    def __init__(self, loss):
        super().__init__(auto_prefix=False)
        self.loss = loss

    def construct(self, latents, noise, sigmas, timesteps, weights, embeds, text):
        return self.loss.predict(add_noise(latents, noise, sigmas), timesteps, embeds, text)
