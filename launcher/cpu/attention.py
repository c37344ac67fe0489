"""Scaled dot-product attention without FlashAttention, and FLUX's attention processor."""

import math

import mindspore as ms
from mindone.diffusers.models import layers_compat
from mindone.diffusers.models.transformers import transformer_flux
from mindspore import nn, ops

from launcher.cpu import gradients
from launcher.cpu.means import constant
from launcher.cpu.rotary import rotate


class _Attention(nn.Cell):
    """``softmax(q k^T) v``, with its gradient written out.

    The generic gradient of softmax sums over the keys, the slowest operation of the whole step on
    CPU. That sum equals the row sum of ``dout * out`` (Dao et al., arXiv:2205.14135, appendix B),
    which is ``keys / head_dim`` times smaller. Subtracting it from every key's entry is made part
    of the product before: one more column ``-row_sum`` on the left, a column of ones on the right.
    """

    def __init__(self):
        super().__init__()
        self.times = ops.BatchMatMul()
        self.times_transposed = ops.BatchMatMul(transpose_b=True)
        self.transposed_times = ops.BatchMatMul(transpose_a=True)
        self.softmax = ops.Softmax(-1)
        self.matmul = ops.MatMul()

    def construct(self, query, key, value):
        """``[b, h, s, d]`` three times ``-> (out [b, h, s, d], probabilities [b, h, s, s])``.

        The softmax is computed in float32 whatever the dtype of the inputs.
        """
        scores = self.times_transposed(query, key).astype(ms.float32)
        probabilities = self.softmax(scores).astype(value.dtype)
        return self.times(probabilities, value), probabilities

    def bprop(self, query, key, value, out, dout):
        # Inside a cell with `to_float` the forward pass is cast operator by operator, and what
        # arrives here is a mixture: all of it is brought to the dtype of the gradient.
        grad = dout[0]
        dtype = grad.dtype
        attended, probabilities = out[0].astype(dtype), out[1].astype(dtype)
        dtypes = query.dtype, key.dtype, value.dtype
        query, key, value = query.astype(dtype), key.astype(dtype), value.astype(dtype)
        head_dim = grad.shape[-1]
        products = (grad * attended).astype(ms.float32).reshape((-1, head_dim))
        minus_row_sum = self.matmul(products, constant((head_dim, 1), -1.0))
        minus_row_sum = minus_row_sum.reshape((*grad.shape[:-1], 1)).astype(dtype)
        ones = constant((*value.shape[:-1], 1), 1.0).astype(dtype)
        difference = self.times_transposed(
            ops.concat((grad, minus_row_sum), -1), ops.concat((value, ones), -1)
        )
        grad_scores = probabilities * difference
        return (
            self.times(grad_scores, key).astype(dtypes[0]),
            self.transposed_times(grad_scores, query).astype(dtypes[1]),
            self.transposed_times(probabilities, grad).astype(dtypes[2]),
        )


_attention = _Attention()


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
    """``torch.nn.functional.scaled_dot_product_attention`` in the dtype of its inputs.

    MindONE's version calls FlashAttention, which has no CPU kernel, and computes float32 inputs in
    float16. A boolean mask keeps where it is True, any other is added to the scores.

    Args:
        query: ``[batch, heads, queries, head_dim]``.
        key, value: ``[batch, heads, keys, head_dim]``; fewer heads with ``enable_gqa``.
        backend: ignored; there is one.
    """
    if enable_gqa:
        key = ops.repeat_interleave(key, query.shape[1] // key.shape[1], 1)
        value = ops.repeat_interleave(value, query.shape[1] // value.shape[1], 1)
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1])
    if scale != 1.0:
        query = query * scale
    if attn_mask is None and not is_causal and dropout_p == 0.0 and gradients.written_out:
        return _attention(query, key, value)[0]

    scores = ops.BatchMatMul(transpose_b=True)(query, key).astype(ms.float32)
    if is_causal:
        allowed = ops.ones(scores.shape[-2:], ms.float32).tril().astype(ms.bool_)
        scores = ops.masked_fill(scores, ops.logical_not(allowed), -math.inf)
    if attn_mask is not None:
        if attn_mask.dtype == ms.bool_:
            scores = ops.masked_fill(scores, ops.logical_not(attn_mask), -math.inf)
        else:
            scores = scores + attn_mask.astype(ms.float32)
    probabilities = ops.softmax(scores, -1).astype(value.dtype)
    if dropout_p > 0.0:
        probabilities = ops.dropout(probabilities, p=dropout_p, training=True)
    return ops.BatchMatMul()(probabilities, value)


def _split_heads(x, heads):
    """``[b, s, heads * d] -> [b, s, heads, d]``."""
    return x.reshape((x.shape[0], x.shape[1], heads, -1))


def flux_attention_call(
    self,
    attn,
    hidden_states,
    encoder_hidden_states=None,
    attention_mask=None,
    image_rotary_emb=None,
    *,
    attend=None,
):
    """``FluxAttnProcessor.__call__``.

    Args:
        attn: the ``FluxAttention`` cell, whose projections and norms are called.
        hidden_states: ``[b, s, c]``; in a single-stream block text and image tokens together.
        encoder_hidden_states: ``[b, t, c]``, text tokens of a double-stream block, or None.
        image_rotary_emb: (cos, sin), each ``[t + s, d]``, or None.
        attend: as :func:`scaled_dot_product_attention` does, or with rounding; None: what stands
            in MindONE's place (see ``launcher.training.precision.attention``).

    Returns:
        ``[b, s, c]``, or for a double-stream block the pair ``[b, s, c], [b, t, c]``.
    """
    query, key, value, text_query, text_key, text_value = transformer_flux._get_qkv_projections(
        attn, hidden_states, encoder_hidden_states
    )
    query = attn.norm_q(_split_heads(query, attn.heads))
    key = attn.norm_k(_split_heads(key, attn.heads))
    value = _split_heads(value, attn.heads)
    if attn.added_kv_proj_dim is not None:
        text_query = attn.norm_added_q(_split_heads(text_query, attn.heads))
        text_key = attn.norm_added_k(_split_heads(text_key, attn.heads))
        text_value = _split_heads(text_value, attn.heads)
        query = ops.concat((text_query, query), 1)
        key = ops.concat((text_key, key), 1)
        value = ops.concat((text_value, value), 1)

    # [b, s, heads, d] -> [b, heads, s, d]
    query = ops.transpose(query, (0, 2, 1, 3))
    key = ops.transpose(key, (0, 2, 1, 3))
    value = ops.transpose(value, (0, 2, 1, 3))
    scale = 1.0 / math.sqrt(query.shape[-1])
    if image_rotary_emb is not None:
        cos, sin = image_rotary_emb
        # The softmax scale goes into the tables: once per step instead of once per block.
        query = rotate(query, cos * scale, sin * scale)
        key = rotate(key, cos, sin)
        scale = 1.0
    if attend is None:
        attend = layers_compat.scaled_dot_product_attention
    out = attend(query, key, value, attn_mask=attention_mask, scale=scale)
    out = ops.transpose(out, (0, 2, 1, 3))
    out = out.reshape((out.shape[0], out.shape[1], -1)).to(query.dtype)

    if encoder_hidden_states is None:
        return out
    text_length = encoder_hidden_states.shape[1]
    image_out = attn.to_out[0](out[:, text_length:])
    image_out = attn.to_out[1](image_out)
    return image_out, attn.to_add_out(out[:, :text_length])
