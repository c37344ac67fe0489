"""Prompt embeddings: T5's hidden states and CLIP's pooled output, as FLUX.1 takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def tokenize(tokenizer: Any, prompts: Sequence[str], length: int) -> np.ndarray:
    """int64 `[B, length]`: token ids, padded and truncated to `length`."""
    return tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="np",
    ).input_ids


def encode_t5(text_encoder_2: Any, input_ids: np.ndarray) -> np.ndarray:
    """T5's last hidden states.

    Args:
        text_encoder_2: a `T5EncoderModel`.
        input_ids: `[B, L]`. Padding is not masked: FLUX.1 was trained with it visible.

    Returns:
        float32 `[B, L, d_model]`.
    """
    import mindspore as ms

    hidden = text_encoder_2(ms.Tensor(input_ids), output_hidden_states=False, return_dict=False)
    return hidden[0].astype(ms.float32).asnumpy()


def encode_clip(text_encoder: Any, input_ids: np.ndarray) -> np.ndarray:
    """CLIP's pooled output.

    Args:
        text_encoder: a `CLIPTextModel`.
        input_ids: `[B, 77]`.

    Returns:
        float32 `[B, hidden_size]`.
    """
    import mindspore as ms

    outputs = text_encoder(ms.Tensor(input_ids), output_hidden_states=False, return_dict=False)
    return outputs[1].astype(ms.float32).asnumpy()
