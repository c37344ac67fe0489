"""A part with one operator of every kind that a report tells apart, and a loss around it."""

import mindspore as ms
from mindone.diffusers.models import layers_compat
from mindone.diffusers.models.normalization import RMSNorm
from mindspore import mint, nn, ops


class Attention(nn.Cell):
    """Attention over tokens, by MindONE's function."""

    def __init__(self):
        super().__init__()
        self.to_q = mint.nn.Linear(8, 8)
        self.to_k = mint.nn.Linear(8, 8)
        self.norm = RMSNorm(8, eps=1e-6)
        self.to_out = mint.nn.Linear(8, 8)

    def construct(self, x):
        query, key, value = self.norm(self.to_q(x)), self.to_k(x), x
        attend = layers_compat.scaled_dot_product_attention
        return self.to_out(attend(query[:, None], key[:, None], value[:, None])[:, 0])


class SilentlyNarrow(Attention):
    """The same as MindONE computes it on an NPU: float32 inputs go through float16."""

    def construct(self, x):
        query, key, value = self.norm(self.to_q(x)), self.to_k(x), x
        half = [t.astype(ms.float16)[:, None] for t in (query, key, value)]
        out = layers_compat.scaled_dot_product_attention(*half)
        return self.to_out(out[:, 0].astype(query.dtype))


class Part(nn.Cell):
    """``images [b, 3, 4, 4] -> [b, 16, 2]``."""

    def __init__(self, attention=Attention):
        super().__init__()
        self.conv = mint.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = mint.nn.LayerNorm(8, elementwise_affine=False)
        self.attention = attention()
        self.proj_out = mint.nn.Linear(8, 2)

    def construct(self, images):
        x = self.conv(images).reshape((images.shape[0], 8, 16)).swapaxes(1, 2)
        x = self.norm(x)
        return self.proj_out(x + self.attention(x))


class Head(nn.Cell):
    """A second part: ``[b, 16, 2] -> [b, 16, 1]``."""

    def __init__(self):
        super().__init__()
        self.linear = mint.nn.Linear(2, 1)

    def construct(self, x):
        return self.linear(x)


class Loss(nn.Cell):
    """The mean square of what comes out of the parts."""

    def __init__(self, part, head, dtype=ms.float32):
        super().__init__()
        self.part = part
        self.head = head
        self.dtype = dtype

    def construct(self, images):
        out = self.head(self.part(images.astype(self.dtype)))
        return ops.square(out.astype(ms.float32)).mean()


class Box:
    """Something that graph mode knows nothing of."""

    def __init__(self, content):
        self.content = content


class CallsPython(nn.Cell):
    """Makes an object on the way, for which the graph calls back into Python."""

    def __init__(self):
        super().__init__()
        self.scale = ms.Parameter(ms.Tensor(2.0, ms.float32), name="scale")

    def construct(self, x):
        return Box(x * self.scale).content
