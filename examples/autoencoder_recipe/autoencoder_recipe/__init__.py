"""A recipe that trains the autoencoder (VAE) of a FLUX pipeline."""
