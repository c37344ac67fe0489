"""LayerNorm, RMSNorm, and the layer norms of FLUX that are modulated by the timestep."""

import numbers

import mindspore as ms
from mindspore import nn, ops

from launcher.cpu import gradients
from launcher.cpu.means import row_means
from launcher.cpu.modulation import modulate
from launcher.cpu.tensor_ops import chunk


class _RmsNorm(nn.Cell):
    """``x / sqrt(mean(x^2) + eps) * weight`` on rows (arXiv:1910.07467), float32.

    The gradient is written out to share the two intermediate results and to avoid reductions.
    """

    def __init__(self):
        super().__init__()
        self.square = ops.Square()
        self.rsqrt = ops.Rsqrt()
        self.sum = ops.ReduceSum()

    def construct(self, x, weight, eps):
        """``x [n, d], weight [d] -> (y, x / rms, 1 / rms)``, each ``[n, d]``."""
        inverse = self.rsqrt(row_means(self.square(x)) + eps)
        normed = x * inverse
        return normed * weight, normed, inverse

    def bprop(self, x, weight, eps, out, dout):
        _, normed, inverse = out
        grad = dout[0] * weight
        grad_x = inverse * (grad - normed * row_means(grad * normed))
        return grad_x, self.sum(dout[0] * normed, 0), 0.0


_rms_norm = _RmsNorm()


def rms_norm(x, weight, eps):
    """``x [..., d], weight [d] -> [..., d]`` float32, computed in float32."""
    rows = x.astype(ms.float32).reshape((-1, x.shape[-1]))
    weight = weight.astype(ms.float32)
    if gradients.written_out:
        return _rms_norm(rows, weight, eps)[0].reshape(x.shape)
    normed = rows * ops.rsqrt(row_means(ops.square(rows)) + eps)
    return (normed * weight).reshape(x.shape)


def rms_norm_construct(self, hidden_states):
    """``RMSNorm.construct`` of ``mindone.diffusers.models.normalization``.

    Returns:
        The dtype of the weight where that is a half-precision one, else the dtype of the input.
        The latter is what the original gives under ``to_float``, which casts the weight.
    """
    dtype = hidden_states.dtype
    if self.weight is None:
        ones = ops.ones((hidden_states.shape[-1],), ms.float32)
        return rms_norm(hidden_states, ones, self.eps).astype(dtype)
    normed = rms_norm(hidden_states, self.weight, self.eps)
    if self.bias is not None:
        normed = normed + self.bias
    if self.weight.dtype == ms.float16 or self.weight.dtype == ms.bfloat16:
        dtype = self.weight.dtype
    return normed.astype(dtype)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """``mint.nn.functional.layer_norm`` over the last ``len(normalized_shape)`` axes."""
    if isinstance(normalized_shape, numbers.Number):
        normalized_shape = (normalized_shape,)
    if weight is None:
        weight = ops.ones(normalized_shape, input.dtype)
    if bias is None:
        bias = ops.zeros(normalized_shape, input.dtype)
    axis = -len(normalized_shape)
    normalise = ops.LayerNorm(axis, axis, eps)
    return normalise(input, weight.astype(input.dtype), bias.astype(input.dtype))[0]


def layer_norm_construct(self, input):
    """``mint.nn.LayerNorm.construct``."""
    return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


def ada_layer_norm_zero_construct(
    self, x, timestep=None, class_labels=None, hidden_dtype=None, emb=None
):
    """``AdaLayerNormZero.construct``."""
    if self.emb is not None:
        emb = self.emb(timestep, class_labels, hidden_dtype=hidden_dtype)
    emb = self.linear(self.silu(emb))
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = chunk(emb, 6, dim=1)
    return modulate(self.norm(x), scale_msa, shift_msa), gate_msa, shift_mlp, scale_mlp, gate_mlp


def ada_layer_norm_zero_single_construct(self, x, emb=None):
    """``AdaLayerNormZeroSingle.construct``."""
    shift, scale, gate = chunk(self.linear(self.silu(emb)), 3, dim=1)
    return modulate(self.norm(x), scale, shift), gate


def ada_layer_norm_continuous_construct(self, x, conditioning_embedding):
    """``AdaLayerNormContinuous.construct``."""
    emb = self.linear(self.silu(conditioning_embedding).to(x.dtype))
    scale, shift = chunk(emb, 2, dim=1)
    return modulate(self.norm(x), scale, shift)
