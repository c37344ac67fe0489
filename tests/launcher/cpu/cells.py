"""Cells that put the substitutes into graph mode. Graph mode compiles sources from a file."""

import mindspore as ms
from mindone.diffusers.models import embeddings, layers_compat
from mindone.diffusers.models.normalization import (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
    RMSNorm,
)
from mindone.diffusers.models.transformers import transformer_flux
from mindspore import mint, nn, ops

from launcher.cpu.rotary import rotate

# Parameters of the layers below, in the order of the inputs they stand for.
LAYER_INPUTS = {
    "layer_norm": ("layer_norm.weight", "layer_norm.bias"),
    "rms_norm": ("rms_norm.weight",),
    "rms_norm_long": ("rms_norm_long.weight",),
    "linear": ("linear.weight", "linear.bias"),
    "conv2d": ("conv2d.weight", "conv2d.bias"),
    "ada_zero": ("ada_zero.linear.weight", "ada_zero.linear.bias"),
    "ada_single": ("ada_single.linear.weight", "ada_single.linear.bias"),
    "ada_continuous": ("ada_continuous.linear.weight", "ada_continuous.linear.bias"),
}


class Functions(nn.Cell):
    """Every substitute for a differentiable function or layer, on its own inputs."""

    def __init__(self, cos, sin, mask):
        super().__init__()
        self.layer_norm = mint.nn.LayerNorm(6, eps=1e-6)
        self.layer_norm_plain = mint.nn.LayerNorm(6, eps=1e-6, elementwise_affine=False)
        self.rms_norm = RMSNorm(8, eps=1e-6)
        self.rms_norm_long = RMSNorm(300, eps=1e-6)
        self.linear = mint.nn.Linear(4, 5)
        self.conv2d = mint.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.ada_zero = AdaLayerNormZero(6)
        self.ada_single = AdaLayerNormZeroSingle(6)
        self.ada_continuous = AdaLayerNormContinuous(6, 5, elementwise_affine=False, eps=1e-6)
        self.cos, self.sin, self.mask = cos, sin, mask

    def construct(
        self, gelu_tanh, gelu_erf, normed, plain, rms, rms_long, lin, conv, padded, mse0, mse1,
        q0, k0, v0, q1, k1, v1, q2, k2, v2, q3, k3, v3, added, q4, k4, v4, rotated,
        zero, zero_emb, single, single_emb, continuous, continuous_emb,
    ):  # fmt: skip
        attend = layers_compat.scaled_dot_product_attention
        return (
            mint.nn.functional.gelu(gelu_tanh, approximate="tanh"),
            mint.nn.functional.gelu(gelu_erf),
            self.layer_norm(normed),
            self.layer_norm_plain(plain),
            self.rms_norm(rms),
            self.rms_norm_long(rms_long),
            self.linear(lin),
            self.conv2d(conv),
            mint.nn.functional.pad(padded, (0, 1, 2, 0)),
            mint.nn.functional.mse_loss(mse0, mse1),
            attend(q0, k0, v0),
            attend(q1, k1, v1, scale=0.3),
            attend(q2, k2, v2, attn_mask=self.mask),
            attend(q3, k3, v3, attn_mask=added),
            attend(q4, k4, v4, is_causal=True),
            rotate(rotated, self.cos, self.sin),
            _flat(self.ada_zero(zero, emb=zero_emb)),
            _flat(self.ada_single(single, emb=single_emb)),
            self.ada_continuous(continuous, continuous_emb),
        )


def _flat(parts):
    flat = ()
    for part in parts:
        flat = (*flat, part.reshape((-1,)))
    return ops.concat(flat, 0)


class WeightedSum(nn.Cell):
    """``sum(outputs * cotangents)`` and the outputs."""

    def __init__(self, network, cotangents):
        super().__init__()
        self.network = network
        self.cotangents = cotangents

    def construct(self, *inputs):
        outputs = self.network(*inputs)
        total = 0.0
        for out, cotangent in zip(outputs, self.cotangents):
            total = total + (out.astype(ms.float32) * cotangent).sum()
        return total, outputs


class Tables(nn.Cell):
    """Position and timestep tables, and T5's buckets."""

    def __init__(self, attention):
        super().__init__()
        self.pos_embed = transformer_flux.FluxPosEmbed(theta=10000, axes_dim=[4, 4, 8])
        self.attention = attention

    def construct(self, ids, timesteps, positions):
        cos, sin = self.pos_embed(ids)
        bucket = self.attention._relative_position_bucket
        return (
            cos,
            sin,
            embeddings.get_timestep_embedding(
                timesteps, 256, flip_sin_to_cos=True, downscale_freq_shift=0
            ),
            embeddings.get_timestep_embedding(timesteps, 9),
            bucket(positions, True, 32, 128),
            bucket(positions, False, 32, 128),
        )


class TensorFunctions(nn.Cell):
    """The ``mint`` functions that create, stack and repeat tensors; ``x [2, 3]``, ``v [3]``."""

    def __init__(self):
        super().__init__()
        self.embedding = mint.nn.Embedding(5, 3)

    def construct(self, x, v, index):
        first, second = mint.unbind(x, 0)
        left, middle, _ = mint.chunk(x, 3, dim=1)
        return (
            mint.arange(4).astype(ms.float32),
            mint.arange(1, 7, 2, dtype=ms.float32),
            mint.linspace(0, 1, 5),
            mint.stack((x, 2 * x), 1),
            first - second,
            2 * left - middle,
            mint.outer(v, 2 * v),
            mint.full((2, 2), 1.5, dtype=ms.float32),
            mint.full(3, 2.0, dtype=ms.float32),
            mint.zeros_like(x) + mint.ones_like(x, dtype=ms.float32),
            mint.repeat_interleave(x, 2, 1),
            mint.repeat_interleave(x, 2),
            mint.norm(x),
            mint.norm(x, dim=-1, keepdim=True),
            mint.nn.functional.embedding(index, x),
            self.embedding(index),
            mint.nn.functional.mse_loss(x, 2 * x, reduction="sum"),
        )


class Random(nn.Cell):
    def construct(self, x):
        return mint.randn(100, 50), mint.randn_like(x), mint.normal(2.0, 0.5, (100, 50))


class First(nn.Cell):
    """Output number ``index`` of a model in eval mode."""

    def __init__(self, model, index):
        super().__init__()
        self.model = model
        self.index = index

    def construct(self, ids):
        return self.model(ids)[self.index]


class TransformerLoss(nn.Cell):
    """Mean square against a target, with one residual as a ControlNet adds it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def construct(
        self, residual, hidden_states, encoder_hidden_states, pooled_projections, timestep,
        guidance, img_ids, txt_ids, target,
    ):  # fmt: skip
        out = self.model(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            guidance=guidance,
            controlnet_block_samples=[residual],
            return_dict=False,
        )[0]
        difference = out.astype(ms.float32) - target
        return (difference * difference).mean(), out


class WideLoss(nn.Cell):
    """The same without guidance and without residuals."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def construct(
        self, hidden_states, encoder_hidden_states, pooled_projections, timestep, img_ids,
        txt_ids, target,
    ):  # fmt: skip
        out = self.model(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            return_dict=False,
        )[0]
        difference = out - target
        return (difference * difference).mean(), out


class ControlNetLoss(nn.Cell):
    """The prediction's mean square, through a ControlNet and the transformer."""

    def __init__(self, controlnet, transformer):
        super().__init__()
        self.controlnet = controlnet
        self.transformer = transformer

    def construct(
        self, condition, hidden_states, encoder_hidden_states, pooled_projections, timestep,
        guidance, img_ids, txt_ids,
    ):  # fmt: skip
        double, single = self.controlnet(
            hidden_states=hidden_states,
            controlnet_cond=condition,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            guidance=guidance,
            return_dict=False,
        )
        out = self.transformer(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            timestep=timestep,
            img_ids=img_ids,
            txt_ids=txt_ids,
            guidance=guidance,
            controlnet_block_samples=double,
            controlnet_single_block_samples=single,
            return_dict=False,
        )[0]
        return (out * out).mean()


class VaeLoss(nn.Cell):
    """Reconstruction from the mean of the posterior; moments ``[b, 2 * channels, h, w]``."""

    def __init__(self, model, channels):
        super().__init__()
        self.model = model
        self.channels = channels

    def construct(self, image):
        moments = self.model.encoder(image)
        decoded = self.model.decode(moments[:, : self.channels], return_dict=False)[0]
        difference = decoded - image
        return (difference * difference).mean(), moments, decoded


class FirstOf(nn.Cell):
    """The first of a network's outputs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, *inputs):
        return self.network(*inputs)[0]


class OtherPaddings(nn.Cell):
    """What is not put on as zeros: mirrored, another value, and a negative width."""

    def construct(self, image):
        return (
            mint.nn.functional.pad(image, (1, 1, 1, 1), mode="reflect"),
            mint.nn.functional.pad(image, (1, 0), value=2.0),
            mint.nn.functional.pad(image, (-1, 0)),
        )


class PaddingGradient(nn.Cell):
    """The gradient of the sum of an image that is padded as the VAE's encoder does."""

    def __init__(self):
        super().__init__()
        self.padding = Padding()
        self.gradient = ops.GradOperation()

    def construct(self, image):
        return self.gradient(self.padding)(image)


class Padding(nn.Cell):
    def construct(self, image):
        return mint.nn.functional.pad(image, (0, 1, 0, 1), mode="constant", value=0).sum()
