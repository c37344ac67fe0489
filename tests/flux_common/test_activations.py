"""The estimate of activations: by hand, on real models, and beside compiled backward passes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from flux_common import activations
from flux_common.activations import Block

DOUBLE = frozenset({"qkv", "to_out", "ff_in", "ff_out", "modulation"})
SINGLE = DOUBLE - {"to_out"}
WIDTH, HEADS, TEXT, IMAGE, BATCH = 64, 4, 24, 40, 2
TOKENS = TEXT + IMAGE
UNIT = BATCH * TOKENS * WIDTH  # what the table counts in


def test_a_frozen_and_a_trained_block_by_hand():
    blocks = [Block(True, 8, 2, frozenset()), Block(False, 8, 2, SINGLE)]
    unit = 3 * 10 * 8 * 2
    softmax = 2 * 8 * 2 * 3 * 10 * 4
    estimate = activations.of_step(blocks, batch=3, tokens=10, value_bytes=2)
    assert estimate.plain == (12 + 19 + 13) * unit + 2 * softmax
    assert estimate.checkpointed == 2 * unit + (19 * unit + softmax) + 13 * unit


def test_without_flash_attention_the_probabilities_stay():
    (block,) = [Block(False, 8, 2, frozenset())]

    def plain(**options):
        return activations.of_step([block], batch=1, tokens=10, **options).plain

    probabilities = 2 * 10 * 10 * 4
    assert plain(value_bytes=4, flash=False) == (11 + 13) * 10 * 8 * 4 + probabilities
    copies = 4 * 10 * 8 * 4  # q, k, v and the result in float32
    assert plain(value_bytes=2, flash=False) == (11 + 13) * 10 * 8 * 2 + probabilities + copies


# -------------------------------------------------------------------------------------------
# From models
# -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks(graph_mode, tiny_flux):
    """The tiny transformer, 2 + 2 blocks, and a ControlNet of 2 + 1; without weights."""
    from mindone.diffusers import FluxControlNetModel, FluxTransformer2DModel

    from flux_common.loading import build

    transformer = build(FluxTransformer2DModel, tiny_flux / "transformer")
    config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
    config |= {"num_layers": 2, "num_single_layers": 1}
    config.pop("out_channels", None)
    return {"transformer": transformer, "controlnet": FluxControlNetModel(**config)}


@pytest.fixture
def trained(networks):
    """Say what is trained: `trained(part, predicate of the name)`; all else is frozen."""

    def choose(**predicates):
        for part, cell in networks.items():
            chosen = predicates.get(part, lambda name: False)
            for name, parameter in cell.parameters_and_names():
                parameter.requires_grad = bool(chosen(name))
        return networks

    return choose


def shape_of(blocks):
    return [("double" if b.double else "single", len(b.layers)) for b in blocks]


def test_a_controlnets_gradients_pass_all_blocks_of_the_transformer_but_the_first(trained):
    models = trained(controlnet=lambda name: True)
    own = [("double", 5), ("double", 5), ("single", 4)]
    passed = [("double", 0), ("single", 0), ("single", 0)]
    assert shape_of(activations.blocks_of(models)) == own + passed


def test_of_adapters_the_inputs_of_their_layers_are_kept(trained):
    models = trained(transformer=lambda name: "to_q." in name or "to_out." in name)
    (double, _, single, _) = activations.blocks_of({"transformer": models["transformer"]})
    assert (double.layers, single.layers) == ({"qkv", "to_out"}, {"qkv"})
    assert (double.kept, single.kept) == (12 + 2, 11 + 1)


def test_before_the_first_trained_block_nothing_is_kept(trained):
    models = trained(transformer=lambda name: name.startswith("single_transformer_blocks.1."))
    (single,) = activations.blocks_of({"transformer": models["transformer"]})
    assert not single.double


def test_with_nothing_trained_nothing_is_kept(trained):
    assert activations.blocks_of(trained()) == []


def test_trained_embedders_send_gradients_through_everything(trained):
    models = trained(transformer=lambda name: name.startswith("x_embedder."))
    assert len(activations.blocks_of({"transformer": models["transformer"]})) == 4


def test_the_largest_size_counts_and_the_dtype_that_is_computed_in(trained):
    import mindspore as ms

    from launcher.training.precision import cast_frozen, cast_trained

    models = trained(controlnet=lambda name: True)
    cast_trained(models["controlnet"], ms.float32, ms.float16)
    cast_frozen(models["transformer"], ms.float16)

    def plain(*sizes):
        return activations.of_networks(models, batch=2, sizes=sizes, text_tokens=16).plain

    blocks = activations.blocks_of(models)
    expected = activations.of_step(blocks, batch=2, tokens=16 + 8, value_bytes=2)
    assert plain((64, 32), (32, 32)) == expected.plain


# -------------------------------------------------------------------------------------------
# Cache and encoders
# -------------------------------------------------------------------------------------------


def part(dtype, **config):
    parameter = SimpleNamespace(dtype=dtype)
    return SimpleNamespace(config=SimpleNamespace(**config), get_parameters=lambda: [parameter])


def test_bytes_of_encodings():
    models = {
        "text_encoder": part("Float32", hidden_size=768),
        "text_encoder_2": part("Float32", d_model=4096),
        "vae": part("BFloat16", latent_channels=16),
    }
    networks = {"transformer": part("BFloat16")}
    assert activations.caption_bytes(models, networks, 512) == (512 * 4096 + 768) * 2
    del models["text_encoder"]  # trained: its input is kept
    assert activations.caption_bytes(models, networks, 512) == 512 * 4096 * 2 + 77 * 4
    assert activations.image_bytes(models["vae"], [(512, 512), (256, 1024)]) == 2 * 16 * 64 * 64 * 2


def test_encoding_is_bounded_by_attention_or_by_the_widest_level():
    config = SimpleNamespace(block_out_channels=[128], num_heads=64, d_ff=10240)
    assert activations.of_vae(config, 1, 64, 64, 4) == 3 * 128 * 64 * 64 * 4
    assert activations.of_vae(config, 1, 2048, 2048, 2) == 2 * 256**4 * 4
    assert activations.of_t5(config, 1, 512, 2) == 2 * 64 * 512 * 512 * 4
    assert activations.of_t5(config, 1, 8, 4) == 3 * 8 * 10240 * 4


# -------------------------------------------------------------------------------------------
# Beside compiled backward passes
# -------------------------------------------------------------------------------------------


def kept_in_graph(block, train):
    """What the compiled backward pass takes from the forward pass, in units, by operator."""
    import mindspore as ms
    from mindspore import Tensor

    from launcher.training.precision.graph import _Graph, trace
    from launcher.training.step import Gradients
    from tests.flux_common.block_cells import Sum

    for parameter in block.get_parameters():
        parameter.requires_grad = train
    start = [Tensor(np.zeros((BATCH, n, WIDTH), np.float32)) for n in (IMAGE, TEXT)]
    cell = Sum(block, *(ms.Parameter(s, name=f"start{i}") for i, s in enumerate(start)))
    rng = np.random.default_rng(0)
    shapes = [
        (BATCH, IMAGE, WIDTH), (BATCH, TEXT, WIDTH), (BATCH, WIDTH),
        (TOKENS, WIDTH // HEADS), (TOKENS, WIDTH // HEADS),
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
        if kind == "Add" and shape[-1:] == (4 * WIDTH,):
            kind = "Add in GELU"
        sums[kind] = sums.get(kind, 0) + math.prod(shape) / UNIT
    return sums


def shape_in(graph, name):
    for attribute in graph.nodes[name].attribute:
        if attribute.name == "shape" and attribute.tensors:
            return tuple(attribute.tensors[0].dims)
    return (0,)


@pytest.fixture(scope="module")
def in_graphs(graph_mode):
    """(double or single, trained or not) -> what is kept."""
    from mindone.diffusers.models.transformers import transformer_flux

    sizes = (WIDTH, HEADS, WIDTH // HEADS)
    return {
        (double, train): kept_in_graph(kind(*sizes), train)
        for double, kind in (
            (True, transformer_flux.FluxTransformerBlock),
            (False, transformer_flux.FluxSingleTransformerBlock),
        )
        for train in (False, True)
    }


@pytest.mark.parametrize(("double", "layers"), [(True, DOUBLE), (False, SINGLE)])
def test_what_training_a_block_adds_is_what_the_compiled_backward_pass_takes(
    in_graphs, double, layers
):
    frozen, trained = (sum(in_graphs[double, train].values()) for train in (False, True))
    added = Block(double, WIDTH, HEADS, layers).kept - Block(double, WIDTH, HEADS, frozenset()).kept
    assert trained - frozen == pytest.approx(added, abs=0.1)


#: What only the substitutes on a CPU make: a GELU of several operators, the rotary tables and the
#: modulation repeated for every token, the inverse of the norms of q and k (whose result they keep
#: in place of the input); and the block's results, which the loss of the test squares.
SUBSTITUTES = {"Sigmoid": 4, "Add in GELU": 4, "BroadcastTo": 4, "Rsqrt": 2}


@pytest.mark.parametrize(("double", "repeated"), [(True, 4), (False, 2)])
def test_what_a_frozen_block_keeps_is_what_the_compiled_backward_pass_takes(
    in_graphs, double, repeated
):
    kept = in_graphs[double, False]
    for operator, size in SUBSTITUTES.items():
        assert kept[operator] == pytest.approx(size, abs=0.1), operator
    assert kept["Softmax"] == HEADS * TOKENS / WIDTH
    attended = 1
    assert kept["BatchMatMul"] == pytest.approx(attended + repeated, abs=0.1)
    results = 1
    others = sum(SUBSTITUTES.values()) + kept["Softmax"] + repeated + results
    table = Block(double, WIDTH, HEADS, frozenset()).kept
    assert sum(kept.values()) - others == pytest.approx(table, abs=0.1)
