"""Cells for tests/flux_common/test_activations.py; in graph mode source must be in a file."""

from mindspore import nn, ops


class Sum(nn.Cell):
    """A block whose inputs have gradients, and a loss of all it makes."""

    def __init__(self, block, image, text):
        super().__init__()
        self.block = block
        self.image = image
        self.text = text

    def construct(self, image, text, temb, cos, sin):
        text, image = self.block(image + self.image, text + self.text, temb, (cos, sin))
        return ops.square(text).sum() + ops.square(image).sum()
