"""What compiled backward passes of FLUX's blocks take from their forward passes.

    python -m tests.flux_common.kept_in_graphs WIDTH HEADS TEXT IMAGE BATCH

For tests/flux_common/test_activations.py. Prints a list: for a double-stream block that is frozen,
one that is trained, and the same of a single-stream block, how many values each operator leaves
behind, in units of BATCH * (TEXT + IMAGE) * WIDTH.
"""

import json
import math
import sys

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from launcher.training import device
from launcher.training.precision.graph import _Graph, trace
from launcher.training.step import Gradients


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


def kept_in_graph(block, train, width, heads, text, image, batch):
    """Operator -> what the compiled backward pass takes of it from the forward pass, in units."""
    for parameter in block.get_parameters():
        parameter.requires_grad = train
    tokens = text + image
    start = [Tensor(np.zeros((batch, n, width), np.float32)) for n in (image, text)]
    cell = Sum(block, *(ms.Parameter(s, name=f"start{i}") for i, s in enumerate(start)))
    rng = np.random.default_rng(0)
    shapes = [
        (batch, image, width), (batch, text, width), (batch, width),
        (tokens, width // heads), (tokens, width // heads),
    ]  # fmt: skip
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    graph = _Graph(trace(Gradients(cell, cell.trainable_params()), inputs), False)
    forward = set(graph.forward)
    kept = {}
    for name in graph.nodes.keys() - forward:
        for operand in forward.intersection(graph.operands(name)):
            value = operand
            while graph.type(value) in ("Reshape", "ExpandDims", "Depend", "Load", "TupleGetItem"):
                value = graph.operands(value)[0]
            if value in graph.nodes and not graph.is_constant(value):
                # Of operators with several results, the largest.
                shapes = (kept.get(value, (0,)), shape_in(graph, operand), shape_in(graph, value))
                kept[value] = max(shapes, key=math.prod)
    sums = {}
    for name, shape in kept.items():
        kind = graph.type(name)
        if kind == "Add" and shape[-1:] == (4 * width,):
            kind = "Add in GELU"
        sums[kind] = sums.get(kind, 0) + math.prod(shape) / (batch * tokens * width)
    return sums


def shape_in(graph, name):
    for attribute in graph.nodes[name].attribute:
        if attribute.name == "shape" and attribute.tensors:
            return tuple(attribute.tensors[0].dims)
    return (0,)


def main():
    sizes = width, heads, *_ = [int(size) for size in sys.argv[1:]]
    device.set_up("CPU", 0, "graph")
    device.supply_what_lacks()
    from mindone.diffusers.models.transformers import transformer_flux

    kinds = (transformer_flux.FluxTransformerBlock, transformer_flux.FluxSingleTransformerBlock)
    blocks = [kind(width, heads, width // heads) for kind in kinds]
    kept = [kept_in_graph(block, train, *sizes) for block in blocks for train in (False, True)]
    print(json.dumps(kept))


if __name__ == "__main__":
    main()
