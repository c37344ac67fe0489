"""A FLUX transformer that tells how large the ControlNet's residuals are where they are added."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, mint, nn, ops


class TracedTransformer(nn.Cell):
    """The forward pass of `FluxTransformer2DModel`, with the same parts in the same order; its
    tests hold it to that.

    Args:
        transformer: a `FluxTransformer2DModel`. It stays the owner of its parameters.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__(auto_prefix=False)
        self.transformer = transformer

    def construct(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        guidance: Tensor | None,
        pooled_projections: Tensor,
        encoder_hidden_states: Tensor,
        txt_ids: Tensor,
        img_ids: Tensor,
        return_dict: bool,
        controlnet_block_samples: Any,
        controlnet_single_block_samples: Any,
    ) -> tuple[Tensor, Tensor]:
        """See `FluxTransformer2DModel.construct`.

        Returns:
            The prediction `[B, L, C]`, and float32 `[B]`: the mean over the blocks of
            `|residual| / |hidden states|`, in L2 norms of a sample.
        """
        net = self.transformer
        hidden = net.x_embedder(hidden_states)
        timestep = timestep.astype(hidden.dtype) * 1000
        if guidance is None:
            embedded = net.time_text_embed(timestep, pooled_projections)
        else:
            guidance = guidance.astype(hidden.dtype) * 1000
            embedded = net.time_text_embed(timestep, guidance, pooled_projections)
        text = net.context_embedder(encoder_hidden_states)
        rotary = net.pos_embed(mint.cat((txt_ids, img_ids), dim=0))
        ratios = ops.zeros(hidden.shape[:1], ms.float32)
        count = 0
        for blocks, samples in (
            (net.transformer_blocks, controlnet_block_samples),
            (net.single_transformer_blocks, controlnet_single_block_samples),
        ):
            for index, block in enumerate(blocks):
                text, hidden = block(
                    hidden_states=hidden,
                    encoder_hidden_states=text,
                    temb=embedded,
                    image_rotary_emb=rotary,
                    joint_attention_kwargs=None,
                )
                if samples is not None:
                    # Few residuals for many blocks: each serves several that follow one another.
                    interval = (len(blocks) + len(samples) - 1) // len(samples)
                    residual = samples[index // interval]
                    ratios = ratios + _norm(residual) / _norm(hidden)
                    count += 1
                    hidden = hidden + residual
        prediction = net.proj_out(net.norm_out(hidden, embedded))
        return prediction, ratios / max(count, 1)


def _norm(x: Tensor) -> Tensor:
    """float32 `[B]`, of `[B, L, C]`. The root of the mean, so that float32 is wide enough."""
    return ops.sqrt(ops.square(x.astype(ms.float32)).mean(axis=(1, 2)))
