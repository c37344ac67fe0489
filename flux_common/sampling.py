"""Making images with the base model, as diffusers' `FluxPipeline` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flux_common import loading
from flux_common.latents import decode, unpack

if TYPE_CHECKING:
    import numpy as np


def load_pipeline(
    path: str, *, revision: str | None = None, variant: str | None = None, dtype: Any
) -> Any:
    """A mindone `FluxPipeline` whose parts are kept, and compute, in `dtype`."""
    from launcher.training import weights
    from launcher.training.freeze import freeze
    from launcher.training.precision import cast_frozen

    with loading.quiet():
        from mindone.diffusers import FluxPipeline
    with loading.deferred():
        parts = loading.load_encoders(path, revision=revision, variant=variant)
        parts["transformer"] = loading.load_transformer(path, revision=revision, variant=variant)
    cells = [part for part in parts.values() if hasattr(part, "get_parameters")]
    freeze(cells)
    for cell in cells:
        cast_frozen(cell, dtype)
    weights.load(cells)
    with loading.quiet():
        scheduler = loading.load_scheduler(path, revision=revision)
        pipeline = FluxPipeline(scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline: Any,
    prompt: str,
    noise: Sequence[np.ndarray],
    *,
    size: tuple[int, int],
    batch_size: int,
    num_inference_steps: int,
    max_sequence_length: int,
) -> Iterator[np.ndarray]:
    """Make an image per noise, with the pipeline's own guidance.

    Args:
        noise: float32 `[L, C]` each, packed latents of standard normal noise.
        size: (height, width) in pixels, multiples of 16.
        batch_size: images at a time; the last batch is filled up to it, so that one graph does.

    Yields:
        uint8 `[height, width, 3]`.
    """
    import mindspore as ms
    import numpy as np

    height, width = size
    for start in range(0, len(noise), batch_size):
        batch = list(noise[start : start + batch_size])
        full = np.stack([*batch, *[batch[-1]] * (batch_size - len(batch))])
        packed = pipeline(
            [prompt] * batch_size,
            height=height,
            width=width,
            latents=ms.Tensor(full).astype(pipeline.transformer.dtype),
            num_inference_steps=num_inference_steps,
            max_sequence_length=max_sequence_length,
            output_type="latent",
        )[0]
        latents = unpack(packed.astype(ms.float32).asnumpy(), height // 8, width // 8)
        yield from decode(pipeline.vae, latents)[: len(batch)]
