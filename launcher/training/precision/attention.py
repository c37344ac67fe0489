"""What FLUX's attention computes in.

MindONE's `scaled_dot_product_attention` casts float32 inputs to float16 and back, because
FlashAttention takes nothing wider, and what it calls its math backend computes the other version
and returns this one all the same (mindone 0.5, `models/layers_compat.py`). A part that is stored
and computed in float32 then has float16's range in its attention. `attend_in` puts another in its
place. Of the parts of a FLUX pipeline the transformer and the ControlNet use it; CLIP, T5 and the
VAE have attention of their own, which computes in what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import nn

from launcher.training import device
from launcher.training.patching import Substitute, apply

_MODULE = "mindone.diffusers.models.layers_compat"
_NAME = "scaled_dot_product_attention"


def attend_in(dtype: Any | None) -> None:
    """Let the attention of MindONE's diffusion models compute in `dtype`.

    To be called before the models are cast, and before they are compiled. Imports MindONE.

    Args:
        dtype: float16, bfloat16 or float32, whatever the inputs are; the last is computed as
            softmax(q k^T) v, without FlashAttention. None: in the dtype of the inputs.
    """
    attention = device.attention_for(dtype)
    if dtype is not None:
        attention = _fixed(attention, dtype)
    apply([Substitute(_MODULE, _NAME, attention, "chosen by precision.attention")])


def _fixed(attention: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
    cell = _AttentionIn(attention, dtype)

    def scaled_dot_product_attention(
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
        out = cell(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return out.astype(query.dtype)

    return scaled_dot_product_attention


class _AttentionIn(nn.Cell):
    """A cell, because one inside a part with `to_float` would be cast with that part."""

    def __init__(self, attention: Callable[..., Any], dtype: Any) -> None:
        super().__init__()
        self.attention = attention
        self.dtype = ms.float32 if device.emulates(dtype) else dtype
        self.to_float(self.dtype)

    def construct(self, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
        return self.attention(
            query.astype(self.dtype),
            key.astype(self.dtype),
            value.astype(self.dtype),
            attn_mask=attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
