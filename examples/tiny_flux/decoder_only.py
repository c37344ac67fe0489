"""Train the VAE's decoder further: what the encoder makes of images stays what it is.

So can a transformer be trained on the latents meanwhile. Stability AI's `sd-vae-ft-mse` was made
that way (https://huggingface.co/stabilityai/sd-vae-ft-mse).
"""

from hooks import hookimpl
from launcher.training.freeze import set_trainable


@hookimpl
def configure_trainable(models):
    set_trainable(models["vae"], False)
    set_trainable(models["vae"].decoder, True)
    return models
