"""How much of a step's forward pass stays in memory for its backward pass: an estimate.

What is counted are the tensors that the gradients of a FLUX block need, in multiples of
`D = batch * tokens * width` values in the dtype of the computation. A double block has two streams,
text and image, and the table holds for each; a single block has one, with the tokens of both.

    needed for the gradient of     | tensors                              | double | single
    -------------------------------|--------------------------------------|--------|-------
    the block's input              | input of the first norm              |    1   |    1
                                   | q, k before their norms              |    2   |    2
                                   | q, k, v as attention takes them      |    3   |    3
                                   | what attention returns               |    1   |    1
                                   | input of the second norm             |    1   |    -
                                   | input of the GELU                    |    4   |    4
    q, k, v (and proj_mlp)         | their input                          |    1   |    1
    to_out                         | its input, cut off for the stream    |    1   |    -
    the feed-forward's first layer | its input                            |    1   |    -
    its second; proj_out           | its input                            |    4   |    5
    the modulation                 | what is scaled and what is gated     |    4   |    2
    -------------------------------|--------------------------------------|--------|-------
    frozen, all trained                                                   | 12, 23 | 11, 19

The first group is needed wherever gradients pass through a block, a frozen one too: a ControlNet's
outputs are added behind the transformer's first block, so its gradients come through all others.
The other groups are needed only where those layers, or adapters on them, are trained.

FlashAttention keeps two float32 numbers per token and head, each eight times (`[B, N, S, 8]`).
Without it, in float32, there are the probabilities, `heads * tokens**2` float32 values, and q, k, v
and the result once more where the block computes in half precision. With gradient checkpointing a
block keeps its input only, and what the table says exists for one block at a time. The block whose
backward pass runs needs about 13 D of its own, which nothing was compared with. Embeddings, the
loss and the last layers are left out, a per cent or so.

Compared with compiled backward passes (`tests/flux_common/test_activations.py`): what training a
block adds is the table's to 0.02 D; what a frozen one keeps is the table's once the tensors are
taken away that only the substitutes on a CPU make.
What is not in it is what a memory manager adds: fragments, and tensors that are freed late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flux_common.encode import BATCH_SIZE
from flux_common.encodings import input_dtype

_FLOAT32 = 4
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_BACKWARD = 13  # gradients within the running block: of proj_out's input 5, GELU 4, q k v 3, x 1


@dataclass(frozen=True)
class Block:
    """One block that gradients pass through, or in which they end.

    Attributes:
        double: a double block; False: a single one.
        width: of the hidden states.
        heads: of its attention.
        layers: what of it is trained, of `qkv`, `to_out`, `ff_in`, `ff_out`, `modulation`; for a
            single block `ff_in` is proj_mlp and `ff_out` is proj_out.
    """

    double: bool
    width: int
    heads: int
    layers: frozenset[str]

    @property
    def kept(self) -> int:
        """The sum of the table's lines, in D."""
        if self.double:
            more = {"qkv": 1, "to_out": 1, "ff_in": 1, "ff_out": 4, "modulation": 4}
            return 12 + sum(more[layer] for layer in self.layers)
        input_kept = bool(self.layers & {"qkv", "ff_in"})
        more = {"ff_out": 5, "modulation": 2}
        return 11 + input_kept + sum(more.get(layer, 0) for layer in self.layers)


@dataclass(frozen=True)
class Activations:
    """Bytes that a micro-batch takes: without gradient checkpointing, and with it."""

    plain: int
    checkpointed: int


def of_step(
    blocks: Sequence[Block], *, batch: int, tokens: int, value_bytes: int, flash: bool = True
) -> Activations:
    """The estimate for blocks that are run one after the other.

    Args:
        blocks: those that gradients reach.
        batch: samples of a micro-batch.
        tokens: of text and image together.
        value_bytes: of the dtype that is computed in.
        flash: attention without a matrix of tokens by tokens.
    """
    plain = inputs = largest = working = 0
    for block in blocks:
        unit = batch * tokens * block.width * value_bytes
        whole = block.kept * unit + _attention(block, batch, tokens, value_bytes, flash)
        plain += whole
        inputs += unit
        largest = max(largest, whole)
        working = max(working, _BACKWARD * unit)
    return Activations(plain + working, inputs + largest + working)


def _attention(block: Block, batch: int, tokens: int, value_bytes: int, flash: bool) -> int:
    if flash:
        return 2 * 8 * block.heads * batch * tokens * _FLOAT32
    copies = 0 if value_bytes == _FLOAT32 else 4 * tokens * block.width
    return (block.heads * tokens * tokens + copies) * batch * _FLOAT32


# -------------------------------------------------------------------------------------------
# From models to blocks
# -------------------------------------------------------------------------------------------

_LAYERS = {
    "qkv": ("attn.to_q.", "attn.to_k.", "attn.to_v.", "attn.add_"),
    "to_out": ("attn.to_out.", "attn.to_add_out."),
    "ff_in": ("ff.net.0.", "ff_context.net.0.", "proj_mlp."),
    "ff_out": ("ff.net.2.", "ff_context.net.2.", "proj_out."),
    "modulation": ("norm.linear.", "norm1.linear.", "norm1_context.linear."),
}


def blocks_of(models: Mapping[str, Any]) -> list[Block]:
    """The blocks of a step's networks that gradients reach.

    Args:
        models: has a FLUX `transformer` and perhaps a `controlnet`, whose parameters say what is
            trained (`requires_grad`).
    """
    controlnet = models.get("controlnet")
    reached = controlnet is not None and bool(controlnet.trainable_params())
    blocks = [] if controlnet is None else list(_reached(controlnet, False))
    transformer = list(models["transformer"].transformer_blocks)
    # The ControlNet's outputs are added behind the first block.
    return blocks + list(_reached(models["transformer"], reached, len(transformer) > 0))


def _reached(model: Any, outside: bool, skip_first: bool = False) -> Iterator[Block]:
    """Blocks with trained parameters, and all behind the first gradient.

    Args:
        outside: whether something that is trained is added to the hidden states.
        skip_first: that happens behind the first block.
    """
    heads = model.config.num_attention_heads
    width = heads * model.config.attention_head_dim
    inside = {
        id(p)
        for blocks in (model.transformer_blocks, model.single_transformer_blocks)
        for block in blocks
        for p in block.get_parameters()
    }
    embedders = any(
        p.requires_grad and id(p) not in inside
        for n, p in model.parameters_and_names()
        if n.startswith(("x_embedder.", "context_embedder.", "time_text_embed.", "controlnet_x_"))
    )
    passes = embedders or (outside and not skip_first)
    doubles = [(block, True) for block in model.transformer_blocks]
    for block, double in [*doubles, *((b, False) for b in model.single_transformer_blocks)]:
        layers = trained_layers(block)
        if passes or layers:
            yield Block(double, width, heads, layers)
        passes = passes or bool(layers) or outside


def trained_layers(block: Any) -> frozenset[str]:
    """Which of `Block.layers` have trained parameters, or adapters."""
    names = [name for name, p in block.parameters_and_names() if p.requires_grad]
    return frozenset(
        layer for layer, prefixes in _LAYERS.items() if any(n.startswith(prefixes) for n in names)
    )


# -------------------------------------------------------------------------------------------
# What a recipe tells `launcher plan`
# -------------------------------------------------------------------------------------------

Sizes = Sequence[tuple[int, int]]


def of_networks(
    networks: Mapping[str, Any], *, batch: int, sizes: Sizes, text_tokens: int
) -> Activations:
    """The estimate of a training step.

    Args:
        networks: `transformer` and perhaps `controlnet`, trainable and cast.
        batch: images of a micro-batch.
        sizes: (height, width) in pixels; the largest counts.
        text_tokens: T5 tokens per caption.
    """
    computation, attention = _computes_in(networks["transformer"])
    image_tokens = max(height * width for height, width in sizes) // 256
    return of_step(
        blocks_of(networks),
        batch=batch,
        tokens=text_tokens + image_tokens,
        value_bytes=_BYTES[computation],
        flash=attention != "float32",
    )


def of_encoders(models: Mapping[str, Any], *, batch: int, sizes: Sizes, text_tokens: int) -> int:
    """Bytes that encoding takes beside the weights: the larger of VAE and T5, which run one after
    the other.

    Args:
        models: `vae` and `text_encoder_2`, cast.
        batch: inputs that are encoded together.
        sizes, text_tokens: see `of_networks`.
    """
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    vae, t5 = models["vae"], models["text_encoder_2"]
    return max(
        of_vae(vae.config, batch, height, width, _BYTES[_computes_in(vae)[0]]),
        of_t5(t5.config, batch, text_tokens, _BYTES[_computes_in(t5)[0]]),
    )


def of_vae(config: Any, batch: int, height: int, width: int, value_bytes: int) -> int:
    """Three tensors of the first level's width at full resolution (a residual block's input, what
    its convolution takes, what it makes), or, at an eighth of it, the attention of the middle
    block: scores and probabilities of all places with all others, in float32."""
    level = 3 * batch * config.block_out_channels[0] * height * width * value_bytes
    places = (height // 8) * (width // 8)
    return int(max(level, 2 * batch * places * places * _FLOAT32))


def of_t5(config: Any, batch: int, tokens: int, value_bytes: int) -> int:
    """Scores and probabilities of a layer in float32, or the three tensors of its feed-forward."""
    attention = 2 * batch * config.num_heads * tokens * tokens * _FLOAT32
    return int(max(attention, 3 * batch * tokens * config.d_ff * value_bytes))


def caption_bytes(models: Mapping[str, Any], networks: Mapping[str, Any], text_tokens: int) -> int:
    """Of a caption in the cache: T5's embeddings and CLIP's pooled one, in the dtype of what takes
    them; where CLIP is trained, 77 int32 token ids in the latter's place."""
    value_bytes = input_dtype(networks["transformer"]).itemsize
    clip = models.get("text_encoder")
    pooled = 77 * 4 if clip is None else clip.config.hidden_size * value_bytes
    return int(text_tokens * models["text_encoder_2"].config.d_model * value_bytes + pooled)


def image_bytes(vae: Any, sizes: Sizes) -> int:
    """Of an image in the cache: mean and log-variance of the posterior, in the VAE's dtype; of
    several sizes the largest."""
    places = max((height // 8) * (width // 8) for height, width in sizes)
    return int(2 * vae.config.latent_channels * places * input_dtype(vae).itemsize)


def estimate(
    config: Any,
    models: Mapping[str, Any],
    networks: Mapping[str, Any],
    *,
    images_per_sample: int,
    rows_per_sample: int = 1,
    captions: int | None,
    images: int | None,
) -> dict[str, Any]:
    """The fields of `hooks.types.MemoryEstimate` for a FLUX run.

    Args:
        config: with the sections `model`, `data` and `train`.
        models, networks: the parts of both stages, cast, without values.
        images_per_sample: that are encoded.
        rows_per_sample: of the batch that the networks see.
        captions, images: how many the data set has; None: there is none.
    """
    data, length = config.data, config.data.max_sequence_length
    shape = dict(sizes=data.sizes, text_tokens=length)
    step = of_networks(networks, batch=rows_per_sample * config.train.train_batch_size, **shape)
    return {
        "activations": step.plain,
        "checkpointed": step.checkpointed,
        "checkpointing": config.model.gradient_checkpointing,
        "checkpointing_option": "model.gradient_checkpointing=true",
        "encoding": of_encoders(models, batch=BATCH_SIZE, **shape),
        "encodings": [
            ("caption", caption_bytes(models, networks, length), 1, captions),
            ("image", image_bytes(models["vae"], data.sizes), images_per_sample, images),
        ],
    }


def _computes_in(cell: Any) -> tuple[str, str]:
    """The dtypes that a part and its attention compute in, as asked for or as it is kept."""
    from launcher.training.precision.cast import asked

    note = asked(cell)
    if note is not None:
        return note.computation, note.attention
    stored = str(input_dtype(cell))
    return stored, stored
