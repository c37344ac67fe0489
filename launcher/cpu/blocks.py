"""FLUX's two transformer blocks, with broadcasts whose gradients are cheap on CPU.

They call the same cells in the same order as MindONE's blocks.
"""

import mindspore as ms
from mindspore import ops

from launcher.cpu.modulation import gated_residual, modulate

_FLOAT16_MAX = 65504


def _limit(x):
    """Keep float16 finite, as the original blocks do."""
    return x.clip(-_FLOAT16_MAX, _FLOAT16_MAX) if x.dtype == ms.float16 else x


def double_block_construct(
    self,
    hidden_states,
    encoder_hidden_states,
    temb,
    image_rotary_emb=None,
    joint_attention_kwargs=None,
    *,
    add=gated_residual,
):
    """``FluxTransformerBlock.construct``: image and text tokens, own weights, joint attention.

    Args:
        hidden_states: image tokens ``[b, s, c]``.
        encoder_hidden_states: text tokens ``[b, t, c]``.
        temb: ``[b, c]``.
        image_rotary_emb: (cos, sin) of text and image positions, each ``[t + s, d]``.
        add: adds to a residual stream, as ``gated_residual`` does, or with rounding.

    Returns:
        text tokens, image tokens.
    """
    image, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.norm1(hidden_states, emb=temb)
    text, text_gate_msa, text_shift_mlp, text_scale_mlp, text_gate_mlp = self.norm1_context(
        encoder_hidden_states, emb=temb
    )
    joint_attention_kwargs = joint_attention_kwargs or {}
    attended = self.attn(
        hidden_states=image,
        encoder_hidden_states=text,
        image_rotary_emb=image_rotary_emb,
        **joint_attention_kwargs,
    )

    image = add(hidden_states, gate_msa, attended[0])
    feed_forward = self.ff(modulate(self.norm2(image), scale_mlp, shift_mlp))
    image = add(image, gate_mlp, feed_forward)
    if len(attended) == 3:  # the IP-Adapter's processor returns a third part
        image = image + attended[2]

    text = add(encoder_hidden_states, text_gate_msa, attended[1])
    normed = modulate(self.norm2_context(text), text_scale_mlp, text_shift_mlp)
    feed_forward = self.ff_context(normed)
    text = add(text, text_gate_mlp, feed_forward)
    return _limit(text), image


def single_block_construct(
    self,
    hidden_states,
    encoder_hidden_states,
    temb,
    image_rotary_emb=None,
    joint_attention_kwargs=None,
    *,
    add=gated_residual,
):
    """``FluxSingleTransformerBlock.construct``: text and image tokens as one sequence.

    Arguments and results as in :func:`double_block_construct`.
    """
    text_length = encoder_hidden_states.shape[1]
    tokens = ops.concat((encoder_hidden_states, hidden_states), 1)
    normed, gate = self.norm(tokens, emb=temb)
    mlp = self.act_mlp(self.proj_mlp(normed))
    joint_attention_kwargs = joint_attention_kwargs or {}
    attended = self.attn(
        hidden_states=normed, image_rotary_emb=image_rotary_emb, **joint_attention_kwargs
    )
    tokens = add(tokens, gate, self.proj_out(ops.concat((attended, mlp), 2)))
    tokens = _limit(tokens)
    return tokens[:, :text_length], tokens[:, text_length:]
