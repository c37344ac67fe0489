"""MindONE's models on the CPU against torch: outputs and gradients, in graph mode."""

import zlib

import numpy as np
import pytest

from tests.launcher.cpu.conftest import as_float32


def worst_gradient(names, grads, reference, prefix):
    """The largest relative L2 difference over the saved gradients.

    Gradients that are zero but for rounding (the bias of a key projection: softmax does not see
    it) are left out.
    """
    actual = dict(zip(names, grads))
    differences = {}
    for key, expected in reference.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            size = np.linalg.norm(expected)
            if size > 1e-7:
                differences[name] = np.linalg.norm(as_float32(actual[name]) - expected) / size
    assert len(differences) > 20
    worst = max(differences, key=differences.get)
    return differences[worst], worst


def load_transformer(folder):
    from mindone.diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    model.set_train()
    return model


@pytest.fixture(scope="module")
def transformer_inputs(reference):
    import mindspore as ms

    names = (
        "in/hidden_states",
        "in/encoder_hidden_states",
        "in/pooled_projections",
        "in/timestep",
        "in/guidance",
        "in/img_ids",
        "in/txt_ids",
        "target",
    )
    residual = ms.Tensor(reference["transformer/residual"])
    return (residual, *(ms.Tensor(reference[f"transformer/{name}"]) for name in names))


def controlnet_of(transformer, num_layers, num_single_layers):
    from mindone.diffusers import FluxControlNetModel

    return FluxControlNetModel.from_transformer(
        transformer,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        attention_head_dim=transformer.config.attention_head_dim,
        num_attention_heads=transformer.config.num_attention_heads,
    )


def checkpoint(*models):
    """Gradient checkpointing as the recipes have it."""
    from launcher.cpu import gradients
    from launcher.training.recompute import checkpoint_blocks

    for model in models:
        checkpoint_blocks((*model.transformer_blocks, *model.single_transformer_blocks))
    assert not gradients.written_out


@pytest.mark.parametrize("recompute", [False, True], ids=["plain", "recomputed"])
def test_transformer(recompute, graph_mode, tiny_flux, transformer_inputs, reference):
    """All parameters trained (full fine-tuning), an image that is not square, 7 text tokens."""
    import mindspore as ms

    from tests.launcher.cpu import cells

    model = load_transformer(tiny_flux)
    names = [p.name for p in model.trainable_params()]
    if recompute:
        checkpoint(model)
    step = ms.value_and_grad(
        cells.TransformerLoss(model), 0, ms.ParameterTuple(model.trainable_params()), has_aux=True
    )
    (loss, out), (residual_grad, grads) = step(*transformer_inputs)
    assert abs(float(loss.asnumpy()) - reference["transformer/loss"]) < 1e-6
    np.testing.assert_allclose(out.asnumpy(), reference["transformer/out"], atol=5e-6)
    expected = reference["transformer/residual_grad"]
    assert np.linalg.norm(residual_grad.asnumpy() - expected) < 1e-5 * np.linalg.norm(expected)
    assert worst_gradient(names, grads, reference, "transformer/grad/")[0] < 1e-4


def named_normal(name, shape):
    """As in tests/data/cpu/make_reference.py."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return (0.1 * generator.standard_normal(shape)).astype(np.float32)


def test_wide_heads_no_guidance_no_single_blocks(graph_mode, reference):
    import mindspore as ms
    from mindone.diffusers import FluxTransformer2DModel

    from tests.launcher.cpu import cells

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
    for name, parameter in model.parameters_dict().items():
        parameter.set_data(ms.Tensor(named_normal(name, parameter.shape)))
    names = [p.name for p in model.trainable_params()]
    step = ms.value_and_grad(
        cells.WideLoss(model), None, ms.ParameterTuple(model.trainable_params()), has_aux=True
    )
    inputs = (
        "in/hidden_states",
        "in/encoder_hidden_states",
        "in/pooled_projections",
        "in/timestep",
        "in/img_ids",
        "in/txt_ids",
        "target",
    )
    (_, out), grads = step(*(ms.Tensor(reference[f"wide/{name}"]) for name in inputs))
    expected = reference["wide/out"]
    assert np.abs(out.asnumpy() - expected).max() < 5e-6 * np.abs(expected).max()
    assert worst_gradient(names, grads, reference, "wide/grad/")[0] < 1e-4


def test_recomputed_controlnet(graph_mode, tiny_flux, transformer_inputs, reference):
    """Gradient checkpointing of a ControlNet and of the frozen transformer behind it."""
    import mindspore as ms

    from tests.launcher.cpu import cells

    transformer = load_transformer(tiny_flux)
    controlnet = controlnet_of(transformer, 1, 1)
    for name, parameter in controlnet.parameters_dict().items():
        if name.startswith("controlnet_"):
            parameter.set_data(ms.Tensor(named_normal(name, parameter.shape)))
    checkpoint(controlnet, transformer)
    names = [p.name for p in controlnet.trainable_params()]
    step = ms.value_and_grad(
        cells.ControlNetLoss(controlnet, transformer),
        None,
        ms.ParameterTuple(controlnet.trainable_params()),
    )
    condition = ms.Tensor(named_normal("condition", transformer_inputs[1].shape))
    loss, grads = step(condition, *transformer_inputs[1:-1])
    assert abs(float(loss.asnumpy()) - reference["controlnet/loss"]) < 1e-6
    assert worst_gradient(names, grads, reference, "controlnet/grad/")[0] < 1e-4


def test_recomputed_controlnet_in_float16(graph_mode, one_layer_flux, transformer_inputs):
    """With the substitutes' own gradients this graph is cyclic, and does not compile."""
    import mindspore as ms

    from launcher.training.freeze import freeze
    from launcher.training.precision import cast_frozen, cast_trained
    from tests.controlnets import fill_zero_layers
    from tests.launcher.cpu import cells

    transformer = load_transformer(one_layer_flux)
    controlnet = controlnet_of(transformer, 1, 1)
    fill_zero_layers(controlnet)
    freeze([transformer])
    cast_frozen(transformer, ms.float16)
    cast_trained(controlnet, ms.float32, ms.float16)
    checkpoint(controlnet, transformer)
    parameters = ms.ParameterTuple(controlnet.trainable_params())
    step = ms.value_and_grad(cells.ControlNetLoss(controlnet, transformer), None, parameters)
    condition = ms.Tensor(named_normal("condition", transformer_inputs[1].shape))
    inputs = (condition, *transformer_inputs[1:4])
    _, grads = step(*(x.astype(ms.float16) for x in inputs), *transformer_inputs[4:-1])
    assert all(np.isfinite(as_float32(gradient)).all() for gradient in grads)
    assert sum(np.any(as_float32(gradient)) for gradient in grads) > len(grads) - 10


def test_transformer_pynative(graph_mode, tiny_flux, transformer_inputs, reference):
    import mindspore as ms

    from tests.launcher.cpu import cells

    model = load_transformer(tiny_flux)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        names = [p.name for p in model.trainable_params()]
        step = ms.value_and_grad(
            cells.TransformerLoss(model),
            None,
            ms.ParameterTuple(model.trainable_params()),
            has_aux=True,
        )
        (loss, _), grads = step(*transformer_inputs)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    assert abs(float(loss.asnumpy()) - reference["transformer/loss"]) < 1e-6
    assert worst_gradient(names, grads, reference, "transformer/grad/")[0] < 1e-4


def test_clip(graph_mode, tiny_flux, reference):
    import mindspore as ms
    from mindone.transformers import CLIPTextModel

    from tests.launcher.cpu import cells

    model = CLIPTextModel.from_pretrained(tiny_flux / "text_encoder").set_train(False)
    pooled = cells.First(model, 1)(ms.Tensor(reference["clip/ids"]))
    np.testing.assert_allclose(pooled.asnumpy(), reference["clip/pooled"], atol=5e-6)


def test_t5(graph_mode, tiny_flux, reference):
    """150 tokens: positions beyond 128, where T5's last bucket begins."""
    import mindspore as ms
    from mindone.transformers import T5EncoderModel

    from tests.launcher.cpu import cells

    model = T5EncoderModel.from_pretrained(tiny_flux / "text_encoder_2").set_train(False)
    hidden = cells.First(model, 0)(ms.Tensor(reference["t5/ids"]))
    np.testing.assert_allclose(hidden.asnumpy(), reference["t5/hidden"], atol=2e-5)


def test_vae(graph_mode, tiny_flux, reference):
    """Encoder and decoder, and gradients of all their parameters."""
    import mindspore as ms
    from mindone.diffusers import AutoencoderKL

    from tests.launcher.cpu import cells

    model = AutoencoderKL.from_pretrained(tiny_flux / "vae").set_train(False)
    names = [p.name for p in model.trainable_params()]
    step = ms.value_and_grad(
        cells.VaeLoss(model, model.config.latent_channels),
        None,
        ms.ParameterTuple(model.trainable_params()),
        has_aux=True,
    )
    (loss, moments, decoded), grads = step(ms.Tensor(reference["vae/image"]))
    assert abs(float(loss.asnumpy()) - reference["vae/loss"]) < 1e-6
    np.testing.assert_allclose(moments.asnumpy(), reference["vae/moments"], atol=5e-6)
    np.testing.assert_allclose(decoded.asnumpy(), reference["vae/decoded"], atol=1e-5)
    assert worst_gradient(names, grads, reference, "vae/grad/")[0] < 1e-4
