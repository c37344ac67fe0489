"""Pictures by diffusers: `python paint.py BASE CONTROLNET INPUTS OUTPUT`, in torch's environment.

INPUTS is an npz of `latents` `[N, tokens, channels]`, the packed noise; `controls`
`[N, H, W, 3]`, uint8; `control_noise` `[N, C, H/8, W/8]`, of the posterior of the control images'
latents; `captions` `[N]`; and the numbers `steps`, `guidance`, `scale`, `tokens`. OUTPUT is an
npy, uint8 `[N, H, W, 3]`.
"""

import sys

import numpy as np
import torch
from diffusers import FluxControlNetModel, FluxControlNetPipeline
from diffusers.pipelines.flux import pipeline_flux_controlnet
from PIL import Image


def main() -> None:
    base, controlnet, inputs, output = sys.argv[1:]
    given = np.load(inputs)
    pipeline = FluxControlNetPipeline.from_pretrained(
        base,
        controlnet=FluxControlNetModel.from_pretrained(controlnet, torch_dtype=torch.float32),
        torch_dtype=torch.float32,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.from_numpy(given["control_noise"])

    def drawn(encoded, generator=None, sample_mode="sample"):
        """The latents that the pipeline would draw, with the given noise."""
        return encoded.latent_dist.mean + encoded.latent_dist.std * noise

    pipeline_flux_controlnet.retrieve_latents = drawn
    height, width = given["controls"].shape[1:3]
    pictures = pipeline(
        prompt=[str(caption) for caption in given["captions"]],
        control_image=[Image.fromarray(control) for control in given["controls"]],
        controlnet_conditioning_scale=float(given["scale"]),
        height=height,
        width=width,
        num_inference_steps=int(given["steps"]),
        guidance_scale=float(given["guidance"]),
        latents=torch.from_numpy(given["latents"]),
        max_sequence_length=int(given["tokens"]),
        output_type="pil",
    ).images
    np.save(output, np.stack([np.asarray(picture) for picture in pictures]))


if __name__ == "__main__":
    main()
