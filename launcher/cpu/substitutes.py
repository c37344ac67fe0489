"""The list: every name that is replaced on the CPU, by what, and why.

Reasons: "no kernel" (the original raises, in graph mode, in PyNative, or in its gradient),
"inaccurate", "slow". The equivalence of each is tested in ``tests/launcher/cpu``.
"""

from launcher.cpu import (
    activations,
    attention,
    embeddings,
    linear,
    nn_functions,
    norms,
    relative_position,
    rotary,
    tensor_ops,
)
from launcher.cpu.patching import Substitute as S

_FUNCTIONAL = "mindspore.mint.nn.functional"
_MODELS = "mindone.diffusers.models"
_FLUX = "mindone.diffusers.models.transformers.transformer_flux"

SUBSTITUTES = (
    # -- functions on tensors
    S("mindspore.mint", "arange", tensor_ops.arange, "no kernel: Arange"),
    S("mindspore.mint", "linspace", tensor_ops.linspace, "no kernel: LinSpaceExt"),
    S("mindspore.mint", "stack", tensor_ops.stack, "no kernel: StackExt"),
    S("mindspore.mint", "unbind", tensor_ops.unbind, "no kernel: its gradient, StackExt"),
    S("mindspore.mint", "outer", tensor_ops.outer, "no kernel: Outer"),
    S("mindspore.mint", "full", tensor_ops.full, "no kernel: FillScalar"),
    S("mindspore.mint", "zeros_like", tensor_ops.zeros_like, "no kernel: ZerosLikeExt"),
    S("mindspore.mint", "ones_like", tensor_ops.ones_like, "no kernel: OnesLikeExt"),
    S(
        "mindspore.mint",
        "repeat_interleave",
        tensor_ops.repeat_interleave,
        "no kernel: RepeatInterleaveInt",
    ),
    S("mindspore.mint", "norm", tensor_ops.norm, "no kernel: LinalgVectorNorm"),
    S("mindspore.mint", "normal", tensor_ops.normal, "no kernel: NormalFloatFloat"),
    S("mindspore.mint", "randn", tensor_ops.randn, "no kernel: InplaceNormal"),
    S("mindspore.mint", "randn_like", tensor_ops.randn_like, "no kernel: InplaceNormal"),
    # -- layers and their functions
    S(_FUNCTIONAL, "gelu", activations.gelu, "no kernel: GeluExt"),
    S(_FUNCTIONAL, "layer_norm", norms.layer_norm, "no kernel: LayerNormExt"),
    S(_FUNCTIONAL, "pad", nn_functions.pad, "no kernel: ConstantPadND"),
    S(_FUNCTIONAL, "mse_loss", nn_functions.mse_loss, "no kernel: MSELossExt"),
    S(_FUNCTIONAL, "embedding", nn_functions.embedding, "no kernel: Embedding"),
    S(_FUNCTIONAL, "conv2d", nn_functions.conv2d, "no kernel: Conv2DExt"),
    S("mindspore.mint.nn", "GELU.construct", activations.gelu_construct, "no kernel: GeluExt"),
    S(
        "mindspore.mint.nn",
        "LayerNorm.construct",
        norms.layer_norm_construct,
        "no kernel: LayerNormExt",
    ),
    S(
        "mindspore.mint.nn",
        "Embedding.construct",
        nn_functions.embedding_construct,
        "no kernel: Embedding",
    ),
    S(
        "mindspore.mint.nn",
        "Conv2d.construct",
        nn_functions.conv2d_construct,
        "no kernel: Conv2DExt",
    ),
    S(
        "mindspore.mint.nn",
        "Linear.construct",
        linear.linear_construct,
        "slow: Dense takes twice the time of MatMul and BiasAdd",
    ),
    # -- MindONE's models
    S(
        f"{_MODELS}.layers_compat",
        "scaled_dot_product_attention",
        attention.scaled_dot_product_attention,
        "no kernel: FlashAttentionScore",
    ),
    S(
        f"{_MODELS}.embeddings",
        "get_timestep_embedding",
        embeddings.get_timestep_embedding,
        "inaccurate: Exp is off by 1.5e-6, a phase of 1e-3 at timestep 1000",
    ),
    S(
        f"{_MODELS}.normalization",
        "RMSNorm.construct",
        norms.rms_norm_construct,
        "slow: a mean over the last axis",
    ),
    S(
        f"{_MODELS}.normalization",
        "AdaLayerNormZero.construct",
        norms.ada_layer_norm_zero_construct,
        "no kernel: Tensor.chunk in graph mode",
    ),
    S(
        f"{_MODELS}.normalization",
        "AdaLayerNormZeroSingle.construct",
        norms.ada_layer_norm_zero_single_construct,
        "no kernel: Tensor.chunk in graph mode",
    ),
    S(
        f"{_MODELS}.normalization",
        "AdaLayerNormContinuous.construct",
        norms.ada_layer_norm_continuous_construct,
        "slow: broadcasts and their gradients",
    ),
    S(
        _FLUX,
        "FluxPosEmbed.construct",
        rotary.pos_embed_construct,
        "no kernel: Tensor.repeat_interleave; inaccurate: Pow",
    ),
    S(
        _FLUX,
        "FluxAttnProcessor.__call__",
        attention.flux_attention_call,
        "no kernel: StackExt and RepeatInterleave in the rotary embedding",
    ),
    S(
        "mindone.transformers.activations",
        "NewGELUActivation.construct",
        activations.new_gelu_construct,
        "inaccurate: Tanh is off by 1e-4",
    ),
    S(
        "mindone.transformers.models.t5.modeling_t5",
        "T5Attention._relative_position_bucket",
        staticmethod(relative_position.relative_position_bucket),
        "inaccurate: Log puts distances 16, 32 and 64 one bucket too low",
    ),
)
