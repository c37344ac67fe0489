"""The LoRA recipe's precision: frozen parts in half precision, adapters as the option says."""

import pytest

from tests import precision_tables as tables
from tests.flux_lora_plugin.conftest import TEXT_LENGTH

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.mark.parametrize(
    ("mixed_precision", "policy", "adapters"),
    [("fp16", "B", "float32"), ("fp16", "C", "float16"), ("bf16", "B", "float32")],
)
def test_a_transformer_with_adapters(
    mixed_precision, policy, adapters, make_transformer, make_loss, micro_batch
):
    from flux_lora_plugin.recipe import apply_precision
    from hooks.types import Models

    models = Models(transformer=make_transformer())
    models = apply_precision(tables.config(mixed_precision, policy), models)
    loss = make_loss(models["transformer"])
    found = tables.report_of(models, [(loss, micro_batch, {})]).parts["transformer"]
    assert found.stored.keys() == {tables.HALF[mixed_precision], adapters}
    assert found.trained.keys() == {adapters}
    assert tables.computed(found) == tables.COMPUTED[mixed_precision]


@pytest.mark.parametrize(("policy", "dtype"), [("A", "float32"), ("B", "float16")])
def test_clip_with_adapters_follows_the_text_encoders(policy, dtype, make_clip):
    import numpy as np

    from flux_lora_plugin.recipe import apply_precision
    from hooks.types import Models

    models = Models(text_encoder=make_clip())
    models = apply_precision(tables.config("fp16", policy), models)
    ids = np.ones((1, TEXT_LENGTH), np.int64)
    call = (models["text_encoder"], [ids], tables.AS_TUPLE)
    found = tables.report_of(models, [call]).parts["text_encoder"]
    assert found.trained.keys() == {"float32"}
    assert tables.computed(found) == dtype
