"""The layers of tests/data/cpu/bf16.npz in graph mode, all in one cell: one compilation."""

import mindspore as ms
from mindone.diffusers.models.normalization import RMSNorm
from mindone.transformers.models.t5.modeling_t5 import T5LayerNorm
from mindspore import mint, nn

from launcher.cpu import bf16


class Attention(nn.Cell):
    """FLUX's attention between projections; it has no cell of its own."""

    def construct(self, query, key, value):
        return bf16.attend(query, key, value, scale=0.25)


def layers():
    """Name -> cell, as in the reference."""
    return {
        "linear": mint.nn.Linear(48, 20),
        "dense": nn.Dense(48, 20),
        "conv2d": mint.nn.Conv2d(6, 8, 3, stride=2, padding=1),
        "nn_conv2d": nn.Conv2d(6, 8, 3, 2, pad_mode="pad", padding=1, has_bias=True),
        "layer_norm": mint.nn.LayerNorm(48),
        "nn_layer_norm": nn.LayerNorm((48,), epsilon=1e-5),
        "layer_norm_plain": mint.nn.LayerNorm(48, eps=1e-6, elementwise_affine=False),
        "rms_norm": RMSNorm(16, eps=1e-6),
        "t5_norm": T5LayerNorm(48),
        "group_norm": mint.nn.GroupNorm(4, 8, eps=1e-6),
        "gelu": mint.nn.GELU(approximate="tanh"),
        "silu": mint.nn.SiLU(),
        "attention": Attention(),
    }


class Layers(nn.Cell):
    """Every layer on its own inputs."""

    def __init__(self):
        super().__init__()
        for name, cell in layers().items():
            setattr(self, name, cell)

    def construct(
        self, linear, dense, conv2d, nn_conv2d, layer_norm, nn_layer_norm, layer_norm_plain,
        rms_norm, t5_norm, group_norm, gelu, silu, query, key, value,
    ):  # fmt: skip
        return (
            self.linear(linear),
            self.dense(dense),
            self.conv2d(conv2d),
            self.nn_conv2d(nn_conv2d),
            self.layer_norm(layer_norm),
            self.nn_layer_norm(nn_layer_norm),
            self.layer_norm_plain(layer_norm_plain),
            self.rms_norm(rms_norm),
            self.t5_norm(t5_norm),
            self.group_norm(group_norm),
            self.gelu(gelu),
            self.silu(silu),
            self.attention(query, key, value),
        )


class Rounded(nn.Cell):
    def construct(self, x):
        return bf16.rounded(x)


class Owner(nn.Cell):
    """A cell of somebody else's, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.inner = mint.nn.Linear(2, 2)
        self.scale = ms.Parameter(ms.Tensor([1.0]), name="scale")

    def construct(self, x):
        return self.inner(x) * self.scale
