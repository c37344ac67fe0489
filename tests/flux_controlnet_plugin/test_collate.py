"""What a micro-batch is made of, with encodings made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from flux_common.latents import image_ids
from flux_controlnet_plugin.collate import ControlNetCollate
from launcher.training.random import StepDraws
from tests.encoded import Kept

CAPTIONS = [("a red circle",), ("a blue circle", "a circle, blue"), ("a green circle",)]


class Table:
    """Stands for a MindSpore tensor."""

    def __init__(self, array):
        self.array = array

    def asnumpy(self):
        return self.array


@pytest.fixture(scope="module")
def reference(data_dir):
    return load_file(data_dir / "parity" / "latents.safetensors")


@pytest.fixture(scope="module")
def scheduler(reference):
    return SimpleNamespace(
        sigmas=Table(reference["table_sigmas"]), timesteps=Table(reference["table_timesteps"])
    )


@pytest.fixture
def kept():
    rng = np.random.default_rng(0)
    kept = Kept()
    for number, caption in enumerate(["", *(c for captions in CAPTIONS for c in captions)]):
        kept.put_text(caption, number, "pooled_prompt_embeds", 3)
    for index in range(3):
        for column in ("target", "condition"):
            kept.put_image(column, index, rng)
    return kept


def collate(kept, scheduler, **options):
    return ControlNetCollate(kept.encoded(), CAPTIONS.__getitem__, scheduler, **options)


def draws(step=0, slots=(0, 1, 2)):
    return StepDraws(seed=0, step=step, slots=slots)


def test_shapes_and_dtypes_of_the_loss_cells_arguments(kept, scheduler):
    arrays = collate(kept, scheduler)([0, 1, 2], draws())
    assert [a.shape for a in arrays] == [
        (3, 6, 16), (3, 6, 16), (3, 6, 16), (3,), (3,), (3,), (3, 5, 2), (3, 3), (6, 3),
    ]  # fmt: skip
    assert all(a.dtype == np.float32 for a in arrays)


def test_the_tokens_positions_are_those_of_the_batchs_own_size(kept, scheduler):
    rng = np.random.default_rng(1)
    for column in ("target", "condition"):
        kept.put_image(column, 1, rng, height=6, width=4)
    make = collate(kept, scheduler)
    wide, high = make([0, 2], draws(slots=[0, 1]))[-1], make([1], draws(slots=[0]))[-1]
    np.testing.assert_array_equal(wide, image_ids(2, 3))
    np.testing.assert_array_equal(high, image_ids(3, 2))


def test_timesteps_and_sigmas_are_diffusers(scheduler, reference):
    latents = reference["pixel_latents"]
    embeds = np.zeros((2, 5, 2), np.float32)
    arrays = ControlNetCollate(None, None, scheduler).assemble(
        latents, latents, reference["noise"], reference["u"], embeds, embeds, reference["img_ids"]
    )
    _, _, _, sigmas, timesteps, weights, _, _, _ = arrays
    np.testing.assert_array_equal(sigmas, reference["sigmas"].reshape(-1))
    np.testing.assert_array_equal(timesteps, reference["timesteps"])
    np.testing.assert_array_equal(weights, 1)


def test_equal_draws_make_equal_batches_and_another_step_other_ones(kept, scheduler):
    make = collate(kept, scheduler)
    first, again, other = (make([0, 1], draws(step, (0, 1))) for step in (5, 5, 6))
    for name, a, b, c in zip(("latents", "control", "noise", "sigmas"), first, again, other):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert not np.array_equal(a, c), name


def test_target_and_condition_are_drawn_independently(kept, scheduler):
    kept["condition", 0] = kept["target", 0]
    latents, control_latents, *_ = collate(kept, scheduler)([0], draws(slots=[0]))
    assert not np.array_equal(latents, control_latents)


def test_empty_prompts_come_in_the_proportion_asked_for_and_change_from_step_to_step(
    kept, scheduler
):
    make = collate(kept, scheduler, proportion_empty_prompts=0.3)
    empty = np.array([make([0, 0, 2], draws(step))[-2][:, 0] == 0 for step in range(400)])
    assert empty.mean() == pytest.approx(0.3, abs=0.04)
    assert 0 < empty[:, 0].sum() < 400  # neither frozen at empty nor at full


def test_no_empty_prompts_unless_asked_for(kept, scheduler):
    make = collate(kept, scheduler)
    assert all((make([0, 1, 2], draws(step))[-2] > 0).all() for step in range(50))


def test_one_of_several_captions_is_drawn_each_time(kept, scheduler):
    make = collate(kept, scheduler)
    chosen = [make([1], draws(step, [0]))[-2][0, 0] for step in range(200)]
    assert set(chosen) == {2, 3}
    assert np.mean(np.array(chosen) == 2) == pytest.approx(0.5, abs=0.1)


def test_the_weighting_scheme_reaches_the_weights(kept, scheduler):
    _, _, _, sigmas, _, weights, *_ = collate(kept, scheduler, weighting_scheme="sigma_sqrt")(
        [0, 1, 2], draws()
    )
    np.testing.assert_allclose(weights, 1 / sigmas.astype(np.float64) ** 2, rtol=1e-6)
