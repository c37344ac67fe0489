"""A control image of your own making: how steeply brightness changes in the target.

launcher --recipe flux_controlnet --config my_run.yaml \\
    -p examples/variants/edge_condition.py data.conditioning_image_column=null

Soft edges, where `data.conditioning=canny` has hard ones.
"""

import numpy as np

from flux_controlnet_plugin.data import build_controlnet_dataset
from hooks import hookimpl


def edges(image):
    """Gradient of the brightness, scaled to the image's steepest: uint8 `[H, W, 3]` both ways."""
    rows, columns = np.gradient(image.mean(axis=2))
    steepness = np.hypot(rows, columns)
    scaled = steepness * (255 / max(steepness.max(), 1))
    return np.repeat(np.rint(scaled).astype(np.uint8)[:, :, None], 3, axis=2)


@hookimpl
def build_dataset(config):
    data = config.data
    return build_controlnet_dataset(
        **data.source,
        image_column=data.image_column,
        conditioning_image_column=data.conditioning_image_column,  # an error beside `edges`
        conditioning=edges,
        caption_column=data.caption_column,
        sizes=data.sizes,
    )
