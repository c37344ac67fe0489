"""Make ``reference.npz``: what the substitutes for the CPU have to reproduce, computed by torch.

Needs torch, diffusers 0.35 and transformers 4.57 (no dependencies of the project)::

    python tests/data/cpu/make_reference.py

For every case of a function: inputs, a cotangent, the output, and the gradient of
``sum(output * cotangent)`` with respect to every input. For the models of
``tests/data/tiny-flux``: inputs, outputs, and some gradients.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FluxControlNetModel, FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb, get_timestep_embedding
from diffusers.models.normalization import (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
    RMSNorm,
)
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from transformers import CLIPTextModel, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

HERE = Path(__file__).parent
MODELS = HERE.parent / "tiny-flux"
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=GENERATOR)


def adaptive(module: torch.nn.Module, x, emb, weight, bias):
    """An adaptive layer norm with the parameters of its linear layer as arguments."""
    state = {"linear.weight": weight, "linear.bias": bias}
    out = torch.func.functional_call(module, state, (x,), {"emb": emb})
    return torch.cat([part.reshape(-1) for part in out])


def continuous(x, emb, weight, bias):
    module = AdaLayerNormContinuous(6, 5, elementwise_affine=False, eps=1e-6)
    state = {"linear.weight": weight, "linear.bias": bias}
    return torch.func.functional_call(module, state, (x, emb))


def rms(x, weight):
    return torch.func.functional_call(RMSNorm(8, eps=1e-6), {"weight": weight}, (x,))


def rotary_tables() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[0, 0, 0], [0, 1, 2], [0, 37, 63], [0, 5, 111.5]])
    return FluxPosEmbed(theta=10000, axes_dim=[4, 4, 8])(ids)


def named_normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter's value as a function of its name; the test makes the same."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return (0.1 * generator.standard_normal(shape)).astype(np.float32)


def function_cases() -> dict:
    """Name -> (function, inputs in the order of its arguments)."""
    mask = torch.tensor([[True, False, True, True], [True, True, False, True], [True] * 4])
    heads = lambda tokens: draw(2, 3, tokens, 5)  # noqa: E731
    attend = F.scaled_dot_product_attention
    return {
        "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), [draw(4, 50, scale=3)]),
        "gelu_erf": (F.gelu, [draw(4, 50, scale=3)]),
        "layer_norm": (
            lambda x, w, b: F.layer_norm(x, (6,), w, b, 1e-6),
            [draw(2, 3, 6) + 2, draw(6), draw(6)],
        ),
        "layer_norm_plain": (lambda x: F.layer_norm(x, (6,), eps=1e-6), [draw(2, 3, 6) + 2]),
        "rms_norm": (rms, [draw(2, 3, 8), 1 + 0.2 * draw(8)]),
        # Longer rows take another path.
        "rms_norm_long": (lambda x, w: F.rms_norm(x, (300,), w, 1e-6), [draw(3, 300), draw(300)]),
        "linear": (F.linear, [draw(2, 3, 4), draw(5, 4), draw(5)]),
        "conv2d": (
            lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
            [draw(2, 3, 7, 5), draw(4, 3, 3, 3), draw(4)],
        ),
        "pad": (lambda x: F.pad(x, (0, 1, 2, 0)), [draw(2, 3, 4, 5)]),
        "mse_loss": (F.mse_loss, [draw(2, 5), draw(2, 5)]),
        "attention": (attend, [heads(3), heads(4), heads(4)]),
        "attention_scale": (
            lambda q, k, v: attend(q, k, v, scale=0.3),
            [heads(3), heads(4), heads(4)],
        ),
        "attention_keep_mask": (
            lambda q, k, v: attend(q, k, v, attn_mask=mask),
            [heads(3), heads(4), heads(4)],
        ),
        "attention_added_mask": (
            lambda q, k, v, m: attend(q, k, v, attn_mask=m),
            [heads(3), heads(4), heads(4), draw(3, 4)],
        ),
        "attention_causal": (
            lambda q, k, v: attend(q, k, v, is_causal=True),
            [heads(4), heads(4), heads(4)],
        ),
        "rotate": (lambda x: apply_rotary_emb(x, rotary_tables()), [draw(2, 3, 4, 16)]),
        "ada_zero": (
            lambda *a: adaptive(AdaLayerNormZero(6), *a),
            [draw(2, 3, 6), draw(2, 6), draw(36, 6), draw(36)],
        ),
        "ada_single": (
            lambda *a: adaptive(AdaLayerNormZeroSingle(6), *a),
            [draw(2, 3, 6), draw(2, 6), draw(18, 6), draw(18)],
        ),
        "ada_continuous": (continuous, [draw(2, 3, 6), draw(2, 5), draw(12, 5), draw(12)]),
    }


def functions() -> dict[str, np.ndarray]:
    saved = {}
    for name, (function, inputs) in function_cases().items():
        inputs = [x.clone().requires_grad_() for x in inputs]
        out = function(*inputs)
        cotangent = draw(*out.shape)
        grads = torch.autograd.grad((out * cotangent).sum(), inputs)
        saved[f"function/{name}/out"] = out.detach().numpy()
        saved[f"function/{name}/cotangent"] = cotangent.numpy()
        for index, (x, grad) in enumerate(zip(inputs, grads, strict=True)):
            saved[f"function/{name}/in{index}"] = x.detach().numpy()
            saved[f"function/{name}/grad{index}"] = grad.numpy()
    return saved


def tables() -> dict[str, np.ndarray]:
    cos, sin = rotary_tables()
    timesteps = torch.tensor([0.0, 1.0, 37.25, 999.0, 1000.0, 3500.0])
    positions = torch.arange(-600, 601)
    return {
        "table/cos": cos.numpy(),
        "table/sin": sin.numpy(),
        "table/timesteps": timesteps.numpy(),
        "table/timestep_embedding": get_timestep_embedding(
            timesteps, 256, flip_sin_to_cos=True, downscale_freq_shift=0
        ).numpy(),
        "table/timestep_embedding_odd": get_timestep_embedding(timesteps, 9).numpy(),
        "table/positions": positions.numpy(),
        "table/buckets": T5Attention._relative_position_bucket(positions, True, 32, 128).numpy(),
        "table/buckets_causal": T5Attention._relative_position_bucket(
            positions, False, 32, 128
        ).numpy(),
    }


def some(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The gradients of the smaller parameters: biases, norms, and some matrices."""
    return {
        name: p.grad.numpy()
        for name, p in model.named_parameters()
        if p.grad is not None and p.numel() <= 1024
    }


def transformer() -> dict[str, np.ndarray]:
    """Loss and gradients of the whole transformer, with residuals as a ControlNet adds them."""
    model = FluxTransformer2DModel.from_pretrained(MODELS / "transformer")
    text, height, width = 7, 3, 5  # not square
    img_ids = torch.zeros(height, width, 3)
    img_ids[..., 1] += torch.arange(height)[:, None]
    img_ids[..., 2] += torch.arange(width)[None]
    inputs = {
        "hidden_states": draw(2, height * width, 64),
        "encoder_hidden_states": draw(2, text, 32),
        "pooled_projections": draw(2, 32),
        "timestep": torch.tensor([0.613, 0.017]),
        "guidance": torch.tensor([3.5, 1.0]),
        "img_ids": img_ids.reshape(-1, 3),
        "txt_ids": torch.zeros(text, 3),
    }
    residual = draw(2, height * width, 32, scale=0.1).requires_grad_()
    target = draw(2, height * width, 64)
    out = model(**inputs, controlnet_block_samples=[residual], return_dict=False)[0]
    loss = ((out - target) ** 2).mean()
    loss.backward()
    saved = {f"transformer/in/{name}": x.numpy() for name, x in inputs.items()}
    saved |= {f"transformer/grad/{name}": grad for name, grad in some(model).items()}
    saved |= {
        "transformer/residual": residual.detach().numpy(),
        "transformer/residual_grad": residual.grad.numpy(),
        "transformer/target": target.numpy(),
        "transformer/out": out.detach().numpy(),
        "transformer/loss": loss.detach().numpy(),
    }
    return saved


def controlnet(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients of a ControlNet through the frozen transformer, on :func:`transformer`'s inputs."""
    base = FluxTransformer2DModel.from_pretrained(MODELS / "transformer").requires_grad_(False)
    heads = {key: base.config[key] for key in ("attention_head_dim", "num_attention_heads")}
    model = FluxControlNetModel.from_transformer(base, num_layers=1, num_single_layers=1, **heads)
    for name, parameter in model.named_parameters():
        if name.startswith("controlnet_"):  # zero in a fresh ControlNet
            parameter.data = torch.from_numpy(named_normal(name, tuple(parameter.shape)))
    prefix = "transformer/in/"
    inputs = {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in inputs.items()
        if key.startswith(prefix)
    }
    condition = torch.from_numpy(named_normal("condition", inputs["hidden_states"].shape))
    double, single = model(**inputs, controlnet_cond=condition, return_dict=False)
    out = base(
        **inputs,
        controlnet_block_samples=double,
        controlnet_single_block_samples=single,
        return_dict=False,
    )[0]
    loss = (out**2).mean()
    loss.backward()
    saved = {f"controlnet/grad/{name}": grad for name, grad in some(model).items()}
    return saved | {"controlnet/loss": loss.detach().numpy()}


def wide() -> dict[str, np.ndarray]:
    """FLUX's own head size, no guidance, no single-stream blocks; weights from ``named_normal``."""
    model = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=0,
        attention_head_dim=128,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=8,
        in_channels=4,
        guidance_embeds=False,
    )
    for name, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(named_normal(name, tuple(parameter.shape)))
    ids = torch.tensor([[0, row, column] for row in range(4) for column in range(2)]).float()
    inputs = {
        "hidden_states": draw(2, 8, 4),
        "encoder_hidden_states": draw(2, 3, 16),
        "pooled_projections": draw(2, 8),
        "timestep": torch.tensor([0.9, 0.25]),
        "img_ids": ids,
        "txt_ids": torch.zeros(3, 3),
    }
    target = draw(2, 8, 4)
    out = model(**inputs, return_dict=False)[0]
    loss = ((out - target) ** 2).mean()
    loss.backward()
    saved = {f"wide/in/{name}": x.numpy() for name, x in inputs.items()}
    saved |= {f"wide/grad/{name}": grad for name, grad in some(model).items()}
    return saved | {
        "wide/target": target.numpy(),
        "wide/out": out.detach().numpy(),
        "wide/loss": loss.detach().numpy(),
    }


def encoders() -> dict[str, np.ndarray]:
    clip = CLIPTextModel.from_pretrained(MODELS / "text_encoder")
    clip_ids = torch.randint(0, clip.config.vocab_size - 1, (2, 77), generator=GENERATOR)
    clip_ids[:, 40:] = clip.config.vocab_size - 1  # the end token: the pooled position
    t5 = T5EncoderModel.from_pretrained(MODELS / "text_encoder_2")
    t5_ids = torch.randint(0, t5.config.vocab_size, (2, 150), generator=GENERATOR)
    with torch.no_grad():
        return {
            "clip/ids": clip_ids.numpy().astype(np.int32),
            "clip/pooled": clip(clip_ids).pooler_output.numpy(),
            "t5/ids": t5_ids.numpy().astype(np.int32),
            "t5/hidden": t5(t5_ids).last_hidden_state.numpy(),
        }


def vae() -> dict[str, np.ndarray]:
    """Moments of an image that is not square, its reconstruction, and gradients."""
    model = AutoencoderKL.from_pretrained(MODELS / "vae")
    image = torch.rand(1, 3, 32, 48, generator=GENERATOR) * 2 - 1
    moments = model.encoder(image)
    decoded = model.decode(moments[:, : model.config.latent_channels]).sample
    loss = ((decoded - image) ** 2).mean()
    loss.backward()
    saved = {f"vae/grad/{name}": grad for name, grad in some(model).items()}
    return saved | {
        "vae/image": image.numpy(),
        "vae/moments": moments.detach().numpy(),
        "vae/decoded": decoded.detach().numpy(),
        "vae/loss": loss.detach().numpy(),
    }


if __name__ == "__main__":
    arrays = {**functions(), **tables(), **transformer(), **wide(), **encoders(), **vae()}
    np.savez_compressed(HERE / "reference.npz", **arrays, **controlnet(arrays))
