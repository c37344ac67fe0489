"""What held-out samples tell: numbers beside the training loss, the transformer alone, and a
computation of the residuals outside of any graph."""

import numpy as np
import pytest

from tests.encoded import Kept
from tests.flux_controlnet_plugin.conftest import load_frozen


def plan(rows, groups, size):
    from flux_controlnet_plugin.figures import batches_of

    return list(batches_of(rows, None if groups is None else np.array(groups), size))


def test_each_sample_is_looked_at_once_at_each_level():
    from flux_controlnet_plugin.figures import LEVELS

    batches = plan([5, 6, 7], None, 5)
    seen = [(item.row, item.level) for items, count in batches for item in items[:count]]
    assert sorted(seen) == sorted((row, level) for row in (5, 6, 7) for level in LEVELS)
    assert {len(items) for items, _ in batches} == {5}
    slots = [item.slot for items, count in batches for item in items[:count]]
    assert sorted(slots) == list(range(12))


@pytest.mark.parametrize("rows", [[4, 5], [1, 3, 5, 7, 9]])
def test_another_samples_control_is_never_ones_own_and_each_is_used_once(rows):
    partners = {i.row: i.partner for items, _ in plan(rows, None, 4) for i in items}
    assert sorted(partners.values()) == rows
    assert all(row != partner for row, partner in partners.items())


def test_batches_and_partners_are_of_one_size_of_images():
    groups = [9, 9, 0, 1, 0, 1, 2]
    batches = plan(range(2, 7), groups, 4)
    for items, _ in batches:
        assert len({groups[item.row] for item in items}) == 1
    partners = {i.row: i.partner for items, _ in batches for i in items}
    assert partners == {2: 4, 4: 2, 3: 5, 5: 3, 6: None}


def test_one_that_is_alone_of_its_size_gets_the_control_of_a_trained_sample():
    groups = [9, 2, 2, 9, 0, 2]
    partners = {i.row: i.partner for items, _ in plan([4, 5], groups, 4) for i in items}
    assert partners == {4: None, 5: 2}
    assert {i.partner for items, _ in plan([7], None, 4) for i in items} == {6}


def test_in_words():
    from flux_controlnet_plugin.figures import in_words

    figures = {"loss": 0.5, "loss_without_control": 0.75, "loss_shuffled_control": 0.625}
    assert in_words(figures | {"residual_norm": 0.125, "samples": 4}) == (
        "held-out loss 0.5, without control 0.75, with another's 0.625; residuals are 12.50% of "
        "the hidden states"
    )
    assert in_words({"loss": float("nan"), "samples": 1}) == "held-out loss nan"


# -- With the tiny FLUX ------------------------------------------------------------------------

ROWS = (3, 4)


@pytest.fixture(scope="module")
def loss(make_loss, tiny_flux):
    return make_loss(1, 1, filled=True, transformer=load_frozen(tiny_flux))


@pytest.fixture(scope="module")
def error(loss):
    from flux_controlnet_plugin.figures import ControlNetError

    return ControlNetError(loss.controlnet, loss.transformer, text_length=16, guidance_scale=3.5)


@pytest.fixture(scope="module")
def run(error, micro_batch):
    """`run(scale)`: the cell on the micro-batch."""
    import mindspore as ms

    latents, control, noise, sigmas, timesteps, _, *rest = micro_batch
    inputs = [ms.Tensor(a) for a in (latents, control, noise, sigmas, timesteps, *rest)]
    known = {}

    def call(scale):
        if scale not in known:
            known[scale] = [out.asnumpy() for out in error(ms.Tensor(scale, ms.float32), *inputs)]
        return known[scale]

    return call


@pytest.fixture(scope="module")
def predictions(loss, micro_batch):
    """Of the transformer itself, with the ControlNet and without, outside of a graph; and the
    hidden states and residuals of every block."""
    import mindspore as ms

    from flux_common.velocity import add_noise

    latents, control, noise, sigmas, timesteps, _, *rest = map(ms.Tensor, micro_batch)
    hidden, residuals = [], []

    def keep_output(cell, inputs, outputs):
        hidden.append(outputs[1].asnumpy())

    def keep_residuals(cell, inputs, outputs):
        residuals.extend([[x.asnumpy() for x in samples] for samples in outputs])

    net = loss.transformer
    ms.set_context(mode=ms.PYNATIVE_MODE)
    blocks = [*net.transformer_blocks, *net.single_transformer_blocks]
    handles = [block.register_forward_hook(keep_output) for block in blocks]
    handles.append(loss.controlnet.register_forward_hook(keep_residuals))
    try:
        noisy = add_noise(latents, noise, sigmas)
        with_control = loss.predict(noisy, control, timesteps, *rest).asnumpy()
        states, hidden = hidden, []
        without = loss.predict(noisy, None, timesteps, *rest).asnumpy()
    finally:
        for handle in handles:
            handle.remove()
        ms.set_context(mode=ms.GRAPH_MODE)
    return with_control, without, states, residuals


def mean_error(prediction, micro_batch):
    latents, _, noise, *_ = micro_batch
    return np.square(prediction.astype(np.float64) - (noise - latents)).mean(axis=(1, 2))


def test_the_error_is_that_of_the_prediction(run, predictions, micro_batch):
    with_control, without, *_ = predictions
    assert np.abs(with_control - without).max() > 1e-2
    np.testing.assert_allclose(run(1.0)[0], mean_error(with_control, micro_batch), rtol=1e-5)
    np.testing.assert_allclose(run(0.0)[0], mean_error(without, micro_batch), rtol=1e-5)


def test_residuals_are_measured_where_they_are_added(run, predictions):
    *_, states, (double, single) = predictions
    depth = len(states) // 2  # two double-stream and two single-stream blocks
    ratios = []
    for place, hidden in enumerate(states):
        residual = (double if place < depth else single)[0]  # one for both blocks of its kind
        norm = np.linalg.norm(residual.astype(np.float64), axis=(1, 2))
        ratios.append(norm / np.linalg.norm(hidden.astype(np.float64), axis=(1, 2)))
    assert len(ratios) == 4
    np.testing.assert_allclose(run(1.0)[1], np.mean(ratios, axis=0), rtol=1e-4)
    np.testing.assert_array_equal(run(0.0)[1], 0)


@pytest.fixture(scope="module")
def held_out(error):
    from types import SimpleNamespace

    from flux_controlnet_plugin.encode import CONDITION, TARGET
    from flux_controlnet_plugin.figures import HeldOut

    rng = np.random.default_rng(5)
    kept = Kept()
    for row in ROWS:
        text = kept.text(f"caption {row}")
        kept[text] = {
            "prompt_embeds": rng.standard_normal((16, 32)).astype(np.float32),
            "pooled_prompt_embeds": rng.standard_normal(32).astype(np.float32),
        }
        for column in (TARGET, CONDITION):
            moments = rng.standard_normal((32, 4, 6)).astype(np.float32)
            kept[kept.image(column, row)] = {"moments": moments}
    steps = np.arange(1000, 0, -1, dtype=np.float32)
    scheduler = SimpleNamespace(
        timesteps=SimpleNamespace(asnumpy=lambda: steps),
        sigmas=SimpleNamespace(asnumpy=lambda: np.append(steps / 1000, 0).astype(np.float32)),
    )
    return HeldOut(
        error, kept.encoded(), lambda row: (f"caption {row}",), scheduler, ROWS, None, 2, 0
    )


def test_the_figures_are_means_over_samples_and_levels(held_out, error):
    import mindspore as ms

    found = held_out.figures()
    assert held_out.figures() == found  # nothing is drawn anew

    def means(scale, shuffled=False):
        errors, ratios = [], []
        for items, count in plan(ROWS, None, 2):
            arrays = held_out.arrays(items, shuffled=shuffled)
            outputs = error(ms.Tensor(scale, ms.float32), *map(ms.Tensor, arrays))
            errors += outputs[0].asnumpy()[:count].tolist()
            ratios += outputs[1].asnumpy()[:count].tolist()
        return np.mean(errors), np.mean(ratios)

    assert found["samples"] == 2
    assert found["loss"] == pytest.approx(means(1.0)[0], rel=1e-6)
    assert found["residual_norm"] == pytest.approx(means(1.0)[1], rel=1e-6)
    assert found["loss_without_control"] == pytest.approx(means(0.0)[0], rel=1e-6)
    assert found["loss_shuffled_control"] == pytest.approx(means(1.0, True)[0], rel=1e-6)
    assert len({found[name] for name in found if name.startswith("loss")}) == 3


def test_only_the_control_is_shuffled(held_out):
    ((items, _), *_) = plan(ROWS, None, 2)
    own, other = held_out.arrays(items), held_out.arrays(items, shuffled=True)
    assert not np.array_equal(own[1], other[1])
    for number in (0, *range(2, len(own))):
        np.testing.assert_array_equal(own[number], other[number])
