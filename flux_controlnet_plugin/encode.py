"""Encode a ControlNet data set."""

from __future__ import annotations

from typing import Any

from flux_common.encode import encode_captions, encode_images


def encode_dataset(
    models: Any, dataset: Any, cache: Any, *, max_sequence_length: int, with_empty_prompt: bool
) -> None:
    """Encode every caption, target and control image of a `ControlNetDataset`.

    Args:
        models: tokenizers, text encoders and VAE.
        dataset: the samples.
        cache: where the encodings go.
        max_sequence_length: T5 tokens per caption.
        with_empty_prompt: encode the empty caption too, for prompt dropout.
    """

    def images(index: int) -> tuple[Any, Any]:
        sample = dataset[index]
        return sample.target, sample.condition

    samples = range(len(dataset))
    captions = [caption for i in samples for caption in dataset.captions(i)]
    if with_empty_prompt:
        captions.append("")
    encode_captions(models, captions, max_sequence_length, cache)
    encode_images(
        models["vae"],
        samples,
        ("target", "condition"),
        images,
        cache,
    )
