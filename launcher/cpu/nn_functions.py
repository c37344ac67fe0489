"""Equivalents of ``mint.nn.functional`` and of ``mint.nn`` layers that have no CPU kernel."""

from mindspore import ops
from mindspore.ops import constexpr


def pad(input, pad, mode="constant", value=0.0):
    """``mint.nn.functional.pad``.

    Zeros are put on by the older primitive, ``Pad``: the gradient of the one that MindSpore 2.10
    takes never returns, on images of height 16, for instance, from its 18th call on.
    """
    if mode != "constant":
        return ops.pad(input, pad, mode)  # refuses a value
    if value or min(pad) < 0:
        return ops.pad(input, pad, mode, value)
    return ops.Pad(_by_axis(input.ndim, pad))(input)


@constexpr
def _by_axis(ndim, pad):
    """``(before, after)`` of every axis; ``pad`` begins with the last axis and tells only some."""
    pairs = tuple(zip(pad[::2], pad[1::2]))
    return ((0, 0),) * (ndim - len(pairs)) + pairs[::-1]


def mse_loss(input, target, reduction="mean"):
    """``mint.nn.functional.mse_loss``."""
    squares = ops.square(input - target)
    if reduction == "mean":
        return squares.mean()
    if reduction == "sum":
        return squares.sum()
    return squares


def embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False
):
    """``mint.nn.functional.embedding``: rows of ``weight [n, d]`` for ``input [...]``."""
    if max_norm is not None or scale_grad_by_freq:
        raise ValueError("On CPU, embedding takes neither max_norm nor scale_grad_by_freq.")
    return ops.gather(weight, input, 0)


def embedding_construct(self, input):
    """``mint.nn.Embedding.construct``."""
    return embedding(
        input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq
    )


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """``mint.nn.functional.conv2d``: ``input [n, c, h, w], weight [o, c / groups, kh, kw]``."""
    if isinstance(padding, int):
        padding = (padding, padding)
    if isinstance(padding, str):
        raise ValueError(f"On CPU, conv2d takes its padding as numbers, not as {padding!r}.")
    convolution = ops.Conv2D(
        out_channel=weight.shape[0],
        kernel_size=(weight.shape[2], weight.shape[3]),
        pad_mode="pad",
        pad=(padding[0], padding[0], padding[1], padding[1]),
        stride=stride,
        dilation=dilation,
        group=groups,
    )
    out = convolution(input, weight)
    if bias is not None:
        out = ops.bias_add(out, bias)
    return out


def conv2d_construct(self, input):
    """``mint.nn.Conv2d.construct``, for zero padding."""
    if self.padding_mode != "zeros":
        raise ValueError(f"On CPU, Conv2d pads with zeros only, not with {self.padding_mode!r}.")
    bias = None if self.bias is None else self.bias.astype(input.dtype)
    weight = self.weight.astype(input.dtype)
    return conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
