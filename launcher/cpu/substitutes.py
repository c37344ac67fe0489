"""The list: every name that is replaced on the CPU, by what, and why.

Reasons: "no kernel" (the original raises in graph mode, in PyNative, or in its gradient; the
kernel is named), "inaccurate", "slow", "hangs". The equivalence of each is tested in
``tests/launcher/cpu``.
"""

from launcher.cpu import (
    activations,
    attention,
    blocks,
    embeddings,
    linear,
    nn_functions,
    norms,
    relative_position,
    rotary,
    tensor_ops,
)
from launcher.training.patching import Substitute

_MINT = "mindspore.mint"
_NN = "mindspore.mint.nn"
_FUNCTIONAL = "mindspore.mint.nn.functional"
_COMPAT = "mindone.diffusers.models.layers_compat"
_EMBEDDINGS = "mindone.diffusers.models.embeddings"
_NORMS = "mindone.diffusers.models.normalization"
_FLUX = "mindone.diffusers.models.transformers.transformer_flux"
_ACTIVATIONS = "mindone.transformers.activations"
_T5 = "mindone.transformers.models.t5.modeling_t5"

_bucket = staticmethod(relative_position.relative_position_bucket)

# fmt: off
_TABLE = (
    # functions on tensors
    (_MINT, "arange", tensor_ops.arange, "no kernel: Arange"),
    (_MINT, "linspace", tensor_ops.linspace, "no kernel: LinSpaceExt"),
    (_MINT, "stack", tensor_ops.stack, "no kernel: StackExt"),
    (_MINT, "unbind", tensor_ops.unbind, "no kernel: StackExt, its gradient"),
    (_MINT, "chunk", tensor_ops.chunk, "no kernel: Chunk, in graph mode of MindSpore 2.7"),
    (_MINT, "outer", tensor_ops.outer, "no kernel: Outer"),
    (_MINT, "full", tensor_ops.full, "no kernel: FillScalar"),
    (_MINT, "zeros_like", tensor_ops.zeros_like, "no kernel: ZerosLikeExt"),
    (_MINT, "ones_like", tensor_ops.ones_like, "no kernel: OnesLikeExt"),
    (_MINT, "repeat_interleave", tensor_ops.repeat_interleave, "no kernel: RepeatInterleaveInt"),
    (_MINT, "norm", tensor_ops.norm, "no kernel: LinalgVectorNorm"),
    (_MINT, "normal", tensor_ops.normal, "no kernel: NormalFloatFloat"),
    (_MINT, "randn", tensor_ops.randn, "no kernel: InplaceNormal"),
    (_MINT, "randn_like", tensor_ops.randn_like, "no kernel: InplaceNormal"),
    # layers and their functions
    (_FUNCTIONAL, "gelu", activations.gelu, "no kernel: GeluExt"),
    (_FUNCTIONAL, "layer_norm", norms.layer_norm, "no kernel: LayerNormExt"),
    (_FUNCTIONAL, "pad", nn_functions.pad, "hangs: PadV3, its gradient"),
    (_FUNCTIONAL, "mse_loss", nn_functions.mse_loss, "no kernel: MSELossExt"),
    (_FUNCTIONAL, "embedding", nn_functions.embedding, "no kernel: Embedding"),
    (_FUNCTIONAL, "conv2d", nn_functions.conv2d, "no kernel: Conv2DExt"),
    (_NN, "GELU.construct", activations.gelu_construct, "no kernel: GeluExt"),
    (_NN, "LayerNorm.construct", norms.layer_norm_construct, "no kernel: LayerNormExt"),
    (_NN, "Embedding.construct", nn_functions.embedding_construct, "no kernel: Embedding"),
    (_NN, "Conv2d.construct", nn_functions.conv2d_construct, "no kernel: Conv2DExt"),
    (_NN, "Linear.construct", linear.linear_construct, "slow: Dense"),
    # MindONE's building blocks
    (_COMPAT, "scaled_dot_product_attention", attention.scaled_dot_product_attention,
     "no kernel: FlashAttentionScore"),
    (_EMBEDDINGS, "get_timestep_embedding", embeddings.get_timestep_embedding,
     "inaccurate: Exp is off by 1.5e-6, at timestep 1000 a phase of 1e-3"),
    (_NORMS, "RMSNorm.construct", norms.rms_norm_construct, "slow: a mean over the last axis"),
    (_NORMS, "AdaLayerNormZero.construct", norms.ada_layer_norm_zero_construct,
     "no kernel: Tensor.chunk in graph mode"),
    (_NORMS, "AdaLayerNormZeroSingle.construct", norms.ada_layer_norm_zero_single_construct,
     "no kernel: Tensor.chunk in graph mode"),
    (_NORMS, "AdaLayerNormContinuous.construct", norms.ada_layer_norm_continuous_construct,
     "slow: gradients of broadcast products"),
    # MindONE's FLUX
    (_FLUX, "FluxPosEmbed.construct", rotary.pos_embed_construct,
     "no kernel: Tensor.repeat_interleave"),
    (_FLUX, "FluxAttnProcessor.__call__", attention.flux_attention_call,
     "no kernel: StackExt, in the rotary embedding"),
    (_FLUX, "FluxTransformerBlock.construct", blocks.double_block_construct,
     "slow: gradients of broadcast products"),
    (_FLUX, "FluxSingleTransformerBlock.construct", blocks.single_block_construct,
     "slow: gradients of broadcast products"),
    # T5
    (_ACTIVATIONS, "NewGELUActivation.construct", activations.new_gelu_construct,
     "inaccurate: Tanh is off by 1e-4"),
    (_T5, "T5Attention._relative_position_bucket", _bucket,
     "inaccurate: Log puts distances 16, 32 and 64 one bucket too low"),
)
# fmt: on

SUBSTITUTES = tuple(Substitute(*row) for row in _TABLE)
