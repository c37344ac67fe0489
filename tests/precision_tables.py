"""The article's tables, and what the recipes' `apply_precision` makes of them."""

from types import SimpleNamespace

import numpy as np

POLICIES = {
    "A": {},
    "B": {"text_encoders": "half"},
    "C": {"text_encoders": "half", "trainable_params": "half"},
}
HALF = {"bf16": "bfloat16", "fp16": "float16"}
#: As a report names what is computed in, on a CPU.
COMPUTED = {"bf16": "bfloat16 (emulated)", "fp16": "float16"}
#: How the recipes call text encoders.
AS_TUPLE = dict(output_hidden_states=False, return_dict=False)


def config(mixed_precision, policy):
    options = dict(
        mixed_precision=mixed_precision,
        text_encoders="fp32",
        trainable_params="fp32",
        attention="auto",
    )
    return SimpleNamespace(precision=SimpleNamespace(**{**options, **POLICIES[policy]}))


def report_of(parts, traced):
    """A report on parts: `traced` holds cells, their inputs and further arguments."""
    from launcher.training.precision.graph import trace
    from launcher.training.precision.report import Report

    report = Report()
    report.add(parts)
    report.observe([trace(cell, inputs, **keywords) for cell, inputs, keywords in traced])
    assert report.problems(loss_scaling=True) == []
    return report


def encoders(pipeline):
    """Text encoders and VAE, frozen as the launcher does, and how they are called."""
    from flux_common.loading import load_text_encoders, load_vae
    from hooks.types import Models
    from launcher.training.freeze import freeze

    clip, t5 = load_text_encoders(str(pipeline))
    models = Models(text_encoder=clip, text_encoder_2=t5, vae=load_vae(str(pipeline)))
    freeze(models.values())
    return models


def calls(models):
    import mindspore as ms

    ids = np.ones((1, 77), np.int64)
    image = ms.Tensor(np.zeros((1, 3, 16, 16), np.float32)).astype(models["vae"].dtype)
    return [
        (models["text_encoder"], [ids], AS_TUPLE),
        (models["text_encoder_2"], [ids[:, :16]], AS_TUPLE),
        (models["vae"].encoder, [image], {}),
    ]


def stored(part):
    (dtype,) = part.stored
    return dtype


def computed(part):
    """The dtype of all that a part computes, norms aside: they may be wider."""
    dtypes = {o.dtype for o, _ in part.operations if o.kind != "normalisation"}
    norms = set(part.observed("normalisation"))
    assert norms <= {*dtypes, "float32"}
    (dtype,) = dtypes
    return dtype
