"""Normalisations: LayerNorm, RMSNorm, and FLUX's adaptive layer norms."""

import numbers

import numpy as np

import mindspore as ms
from mindspore import mint, nn, ops
from mindspore.ops import constexpr


@constexpr
def _averaging_matrix(size, dtype):
    """``[size, size]``, every entry ``1 / size``: ``x @ it`` is the mean of each row, repeated."""
    return ms.Tensor(np.full((size, size), 1.0 / size), dtype)


class _RmsNorm(nn.Cell):
    """``x / sqrt(mean(x^2) + eps)`` on rows (arXiv:1910.07467), with its gradient written out.

    A mean over the last axis takes ten times as long on CPU as the same mean written as a product
    with a constant matrix, and the product needs no broadcast afterwards.
    """

    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul()
        self.square = ops.Square()
        self.rsqrt = ops.Rsqrt()

    def construct(self, x, average, eps):
        """``x [n, d], average [d, d] -> (x / rms [n, d], 1 / rms [n, d])``."""
        inverse = self.rsqrt(self.matmul(self.square(x), average) + eps)
        return x * inverse, inverse

    def bprop(self, x, average, eps, out, dout):
        normed, inverse = out
        grad = dout[0]
        projection = self.matmul(grad * normed, average)
        return inverse * (grad - normed * projection), ops.zeros_like(average), 0.0


_rms_norm = _RmsNorm()


def rms_norm(x, eps):
    """``x [..., d] -> [..., d]``, computed in float32, returned in float32."""
    rows = x.astype(ms.float32).reshape((-1, x.shape[-1]))
    return _rms_norm(rows, _averaging_matrix(x.shape[-1], ms.float32), eps)[0].reshape(x.shape)


def rms_norm_construct(self, hidden_states):
    """``RMSNorm.construct`` of ``mindone.diffusers.models.normalization``."""
    normed = rms_norm(hidden_states, self.eps)
    if self.weight is None:
        return normed.astype(hidden_states.dtype)
    if self.weight.dtype == ms.float16 or self.weight.dtype == ms.bfloat16:
        normed = normed.astype(self.weight.dtype)
    else:
        normed = normed.astype(hidden_states.dtype)
    normed = normed * self.weight
    if self.bias is not None:
        normed = normed + self.bias
    return normed


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """``mint.nn.functional.layer_norm`` over the last ``len(normalized_shape)`` axes."""
    if isinstance(normalized_shape, numbers.Number):
        normalized_shape = (normalized_shape,)
    if weight is None:
        weight = ops.ones(normalized_shape, input.dtype)
    if bias is None:
        bias = ops.zeros(normalized_shape, input.dtype)
    axis = -len(normalized_shape)
    return ops.LayerNorm(axis, axis, eps)(input, weight.astype(input.dtype), bias.astype(input.dtype))[0]


def layer_norm_construct(self, input):
    """``mint.nn.LayerNorm.construct``."""
    return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


def _modulate(x, scale, shift):
    """``x [b, s, c] * (1 + scale [b, c]) + shift [b, c]``."""
    return x * (1 + scale).expand_dims(1) + shift.expand_dims(1)


def ada_layer_norm_zero_construct(
    self, x, timestep=None, class_labels=None, hidden_dtype=None, emb=None
):
    """``AdaLayerNormZero.construct``: ``Tensor.chunk`` has no kernel in graph mode."""
    if self.emb is not None:
        emb = self.emb(timestep, class_labels, hidden_dtype=hidden_dtype)
    emb = self.linear(self.silu(emb))
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = mint.chunk(emb, 6, dim=1)
    return _modulate(self.norm(x), scale_msa, shift_msa), gate_msa, shift_mlp, scale_mlp, gate_mlp


def ada_layer_norm_zero_single_construct(self, x, emb=None):
    """``AdaLayerNormZeroSingle.construct``: ``Tensor.chunk`` has no kernel in graph mode."""
    shift, scale, gate = mint.chunk(self.linear(self.silu(emb)), 3, dim=1)
    return _modulate(self.norm(x), scale, shift), gate


def ada_layer_norm_continuous_construct(self, x, conditioning_embedding):
    """``AdaLayerNormContinuous.construct``."""
    emb = self.linear(self.silu(conditioning_embedding).to(x.dtype))
    scale, shift = mint.chunk(emb, 2, dim=1)
    return _modulate(self.norm(x), scale, shift)
