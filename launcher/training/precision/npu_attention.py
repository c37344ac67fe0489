"""Attention on an NPU: FlashAttention for half precision, and softmax(q k^T) v for float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindone.diffusers.models import layers_compat

# As MindONE has it, whatever takes its place later.
_flash = layers_compat.scaled_dot_product_attention
_math = layers_compat.math_attention_op


def attention_for(dtype: Any | None) -> Callable[..., Any]:
    """See `launcher.training.device.attention_for`."""
    if dtype is None:
        return _as_given
    return _math if dtype == ms.float32 else _flash


def _as_given(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    backend=None,
):
    if query.dtype == ms.float32:
        return _math(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    return _flash(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
