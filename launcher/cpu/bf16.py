"""bfloat16 on the CPU, which can store and cast it, but has no kernels that compute in it.

Tensors flow in float32 and hold bfloat16 values. :func:`emulate` gives every cell of a model a
class of its own, derived from the one it has, that rounds what goes in, the parameters where they
are used, and what comes out. The computation between is in float32, as NPUs and GPUs accumulate.
The gradient of a rounding is that rounding, so gradients are bfloat16 values wherever a leaf cell
begins or ends. Rounded as well: attention's inputs and result, every addition to a residual
stream, and the networks' timestep and guidance. Arithmetic between two leaf cells in other places
(a modulation, T5's attention) is rounded when the next leaf takes its result.

Parameters may be stored in bfloat16, or in float32: then they are rounded in use, as
`Cell.to_float` does on an NPU.

Models that are not given to :func:`emulate` are not touched.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import mindspore as ms
from mindone.diffusers.models import attention_processor, normalization, resnet
from mindone.diffusers.models.controlnets import controlnet_flux
from mindone.diffusers.models.transformers import transformer_flux
from mindone.transformers.models.clip import modeling_clip
from mindone.transformers.models.t5 import modeling_t5
from mindspore import mint, nn, ops

from launcher.cpu.attention import flux_attention_call, scaled_dot_product_attention
from launcher.cpu.blocks import double_block_construct, single_block_construct
from launcher.cpu.linear import linear
from launcher.cpu.modulation import gated_residual
from launcher.cpu.nn_functions import conv2d
from launcher.cpu.norms import layer_norm, rms_norm


class UnsupportedCellError(RuntimeError):
    """A cell with parameters of its own, whose arithmetic is not known here."""


def _round(x):
    """Round float32 to bfloat16's 8 significant bits, to nearest, ties to even.

    Veltkamp's splitting (Dekker, "A floating-point technique for extending the available
    precision", 1971, section 5): three float32 operations, several times faster on the CPU than
    its casts. From 2^111 on it overflows to NaN. The gradient is passed on as it is.
    """
    scaled = ops.stop_gradient(x * 65537.0)
    return scaled - (scaled - x)


# Not a cell with a `bprop` of its own: in a recomputed block that makes MindSpore's graph cyclic.
_round_gradient = ops.InsertGradientOf(_round)


def rounded(x):
    """float32 in `x`'s shape: its values, and in the backward pass its gradient, rounded to
    bfloat16. None stays None."""
    if x is None:
        return None
    if x.dtype == ms.bfloat16:  # a stored parameter: nothing to round, and its gradient is cast
        return x.astype(ms.float32)
    return _round(_round_gradient(x.astype(ms.float32)))


def _rounded_parts(x):
    """Like `rounded` for the tensors in `x`, tuples included; other dtypes and objects stay."""
    if isinstance(x, (tuple, list)):
        return tuple([_rounded_parts(part) for part in x])
    if isinstance(x, ms.Tensor) and x.dtype in (ms.float32, ms.bfloat16):
        return rounded(x)
    return x


def _gated_residual(residual, gate, x):
    return rounded(gated_residual(residual, gate, x))


def attend(
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
    """Scaled dot-product attention in bfloat16; scores and probabilities stay in float32."""
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1])
    query, key, value = rounded(query * scale), rounded(key), rounded(value)
    return rounded(
        scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, 1.0, enable_gqa
        )
    )


# Leaf cells with parameters.


def _linear(self, x):
    return rounded(linear(rounded(x), rounded(self.weight), rounded(self.bias)))


def _dense(self, x):
    bias = rounded(self.bias) if self.has_bias else None
    out = rounded(linear(rounded(x), rounded(self.weight), bias))
    return rounded(self.activation(out)) if self.activation_flag else out


def _conv2d(self, input):
    weight, bias = rounded(self.weight), rounded(self.bias)
    out = conv2d(
        rounded(input), weight, bias, self.stride, self.padding, self.dilation, self.groups
    )
    return rounded(out)


def _nn_conv2d(self, x):
    out = self.conv2d(rounded(x), rounded(self.weight))
    return rounded(self.bias_add(out, rounded(self.bias)) if self.has_bias else out)


def _layer_norm(self, input):
    weight, bias = rounded(self.weight), rounded(self.bias)
    return rounded(layer_norm(rounded(input), self.normalized_shape, weight, bias, self.eps))


def _nn_layer_norm(self, input_x):
    gamma, beta = rounded(self.gamma), rounded(self.beta)
    return rounded(layer_norm(rounded(input_x), self.normalized_shape, gamma, beta, self.epsilon))


def _rms_norm(self, hidden_states):
    x = rounded(hidden_states)
    if self.weight is None:
        return rounded(rms_norm(x, ops.ones((x.shape[-1],), ms.float32), self.eps))
    out = rounded(rms_norm(x, rounded(self.weight), self.eps))
    return out if self.bias is None else rounded(out + rounded(self.bias))


def _t5_layer_norm(self, hidden_states):
    out = rms_norm(rounded(hidden_states), rounded(self.weight), self.variance_epsilon)
    return rounded(out)


def _group_norm(self, input):
    weight, bias = rounded(self.weight), rounded(self.bias)
    out = mint.nn.functional.group_norm(rounded(input), self.num_groups, weight, bias, self.eps)
    return rounded(out)


def _embedding(self, input):
    return ops.gather(rounded(self.weight), input, 0)


def _nn_embedding(self, ids):
    return ops.gather(rounded(self.embedding_table), ids, 0)


# Leaf cells without, and cells with a residual stream.


def _leaf(self, *args, **kwargs):
    return _rounded_parts(self.plain_construct(*_rounded_parts(args), **kwargs))


def _cell(self, *args, **kwargs):
    return _rounded_parts(self.plain_construct(*args, **kwargs))


def _network(self, *args, timestep=None, guidance=None, **kwargs):
    """FLUX's networks bring timestep and guidance to the dtype of their other inputs."""
    timestep, guidance = rounded(timestep), rounded(guidance)
    return self.plain_construct(*args, timestep=timestep, guidance=guidance, **kwargs)


def _double_block(self, *args, **kwargs):
    return double_block_construct(self, *args, **kwargs, add=_gated_residual)


def _single_block(self, *args, **kwargs):
    return single_block_construct(self, *args, **kwargs, add=_gated_residual)


def _clip_attention(
    self,
    hidden_states,
    attention_mask=None,
    causal_attention_mask=None,
    output_attentions=False,
):
    """``CLIPAttention.construct``, each operation rounded; the weights are not returned."""
    batch, tokens, channels = hidden_states.shape
    shape = (batch, tokens, self.num_heads, self.head_dim)
    query = rounded(self.q_proj(hidden_states) * self.scale).reshape(shape).swapaxes(1, 2)
    # Rounded as well, because with an adapter they are sums.
    key = rounded(self.k_proj(hidden_states)).reshape(shape).swapaxes(1, 2)
    value = rounded(self.v_proj(hidden_states)).reshape(shape).swapaxes(1, 2)
    scores = rounded(ops.BatchMatMul(transpose_b=True)(query, key))
    if causal_attention_mask is not None:
        scores = scores + causal_attention_mask  # 0, or too large a number to be rounded here
    if attention_mask is not None:
        scores = scores + attention_mask
    out = rounded(ops.BatchMatMul()(rounded(ops.softmax(scores, -1)), value))
    return self.out_proj(out.swapaxes(1, 2).reshape((batch, tokens, channels))), None


def _attention(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """`Attention.scaled_dot_product_attention` of the VAE."""
    return attend(query, key, value, attn_mask, dropout_p, is_causal, scale)


class Bf16FluxAttnProcessor(transformer_flux.FluxAttnProcessor):
    """FLUX's attention with rounded inputs and result."""

    def __call__(self, *args, **kwargs):
        return flux_attention_call(self, *args, **kwargs, attend=attend)


_CONSTRUCTS = {
    mint.nn.Linear: _linear,
    nn.Dense: _dense,
    mint.nn.Conv2d: _conv2d,
    nn.Conv2d: _nn_conv2d,
    mint.nn.LayerNorm: _layer_norm,
    nn.LayerNorm: _nn_layer_norm,
    mint.nn.GroupNorm: _group_norm,
    normalization.RMSNorm: _rms_norm,
    modeling_t5.T5LayerNorm: _t5_layer_norm,
    mint.nn.Embedding: _embedding,
    nn.Embedding: _nn_embedding,
    transformer_flux.FluxTransformerBlock: _double_block,
    transformer_flux.FluxSingleTransformerBlock: _single_block,
    transformer_flux.FluxTransformer2DModel: _network,
    controlnet_flux.FluxControlNetModel: _network,
    resnet.ResnetBlock2D: _cell,
    modeling_clip.CLIPAttention: _clip_attention,
    modeling_clip.CLIPEncoderLayer: _cell,
    modeling_t5.T5LayerSelfAttention: _cell,
    modeling_t5.T5LayerFF: _cell,
}

#: What takes the place of other methods.
_METHODS = {
    attention_processor.Attention: {"scaled_dot_product_attention": _attention},
}

#: Whether models that are emulated attend in bfloat16 too, or in what `precision.attention` says.
emulates_attention = True

#: Position tables are computed and used in float32, also where everything else is bfloat16.
_FLOAT32 = (transformer_flux.FluxPosEmbed,)


class Emulated:
    """Mixed into the class of every emulated cell, and of the model that :func:`emulate` is given.

    Attributes:
        dtype: of the tensors that go in and out. mindone casts to it what it gives to a model.
    """

    emulates_bf16 = True
    dtype = ms.float32


def emulate(model: nn.Cell) -> None:
    """Let a model compute as in bfloat16. A second call does nothing.

    Raises:
        UnsupportedCellError: a cell has parameters and a class that is not known here. Nothing
            has been changed then.
    """
    cells = [
        (name, cell)
        for name, cell in model.cells_and_names()
        if not isinstance(cell, (Emulated, *_FLOAT32))
    ]
    for name, cell in cells:
        if _own_parameters(cell) and _construct_for(cell) is None:
            raise UnsupportedCellError(f"{name or 'the model'} ({type(cell).__name__})")
    for _, cell in cells:
        original: Any = type(cell)
        construct = _construct_for(cell)
        if construct is not None or cell is model or original in _METHODS:
            cell.__class__ = _derived(original, construct)
        processor = getattr(cell, "processor", None)
        if emulates_attention and isinstance(processor, transformer_flux.FluxAttnProcessor):
            cell.processor = Bf16FluxAttnProcessor()


def _own_parameters(cell: nn.Cell) -> bool:
    """Whether a cell has parameters that are not its sub-cells'."""
    return any(True for _ in cell.parameters_and_names(expand=False))


def _construct_for(cell: nn.Cell) -> Any:
    """What takes the place of a cell's `construct`, if anything does."""
    for known, construct in _CONSTRUCTS.items():
        if isinstance(cell, known):
            return construct
    is_leaf = not any(True for _ in cell.cells())
    is_container = isinstance(cell, (nn.CellList, nn.CellDict, nn.SequentialCell))
    return _leaf if is_leaf and not is_container and not _own_parameters(cell) else None


@functools.cache
def _derived(original: Any, construct: Any) -> type:
    namespace = dict(_METHODS.get(original, {}))
    if construct is not None:
        namespace |= {"construct": construct, "plain_construct": original.construct}
    # The original's name: exported config.json files go by it.
    return type(original.__name__, (Emulated, original), namespace)
