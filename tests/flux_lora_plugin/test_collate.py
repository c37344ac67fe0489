"""What a micro-batch is made of, with encodings made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from flux_common.latents import image_ids
from flux_lora_plugin.collate import LoraCollate
from flux_lora_plugin.data import CLASS, INSTANCE, DreamBoothDataset
from launcher.training.random import StepDraws
from tests.encoded import Kept


class Table:
    """Stands for an `ImageTextTable`."""

    def __init__(self, *captions):
        self.all = captions

    def __len__(self):
        return len(self.all)

    def captions(self, row):
        return (self.all[row],)

    def sizes(self):
        raise AssertionError("there is one size")


@pytest.fixture
def scheduler():
    timesteps = np.arange(1000, 0, -1).astype(np.float32)
    return SimpleNamespace(
        sigmas=SimpleNamespace(asnumpy=lambda: timesteps / 1000),
        timesteps=SimpleNamespace(asnumpy=lambda: timesteps),
    )


@pytest.fixture
def dataset():
    return DreamBoothDataset(Table("one", "two", "three"), Table("class", "class"), [(64, 96)])


@pytest.fixture
def encoded():
    rng = np.random.default_rng(0)
    kept = Kept()
    for number, caption in enumerate(["", "one", "two", "three", "class"]):
        kept.put_text(caption, number, "clip_input_ids", 77)
    for kind, count in ((INSTANCE, 3), (CLASS, 2)):
        for row in range(count):
            kept.put_image(kind, row, rng)
    return kept.encoded()


def draws(step=0, slots=(0, 1)):
    return StepDraws(seed=0, step=step, slots=slots)


def test_instances_alone(encoded, dataset, scheduler):
    arrays = LoraCollate(encoded, dataset, scheduler, weighting_scheme="none")([0, 2], draws())
    assert [a.shape for a in arrays] == [
        (2, 6, 16),
        (2, 6, 16),
        (2,),
        (2,),
        (2,),
        (2, 5, 2),
        (2, 77),
        (6, 3),
    ]
    np.testing.assert_array_equal(arrays[4], 1)
    np.testing.assert_array_equal(arrays[-2][:, 0], [1, 3])
    assert arrays[-2].dtype == np.int32
    np.testing.assert_array_equal(arrays[-1], image_ids(2, 3))


def test_class_images_are_the_second_half_with_draws_of_their_own(encoded, dataset, scheduler):
    alone = LoraCollate(encoded, dataset, scheduler, weighting_scheme="none")([0, 2], draws())
    both = LoraCollate(encoded, dataset, scheduler, weighting_scheme="none", prior_loss_weight=0.5)(
        [0, 2], draws()
    )
    assert [len(array) for array in both] == [4] * 7 + [6]
    for index in (0, 1, 2, 3, 5, 6):
        np.testing.assert_array_equal(both[index][:2], alone[index])
    for index in (0, 1, 2):
        assert not np.array_equal(both[index][2:], alone[index])
    np.testing.assert_array_equal(both[-2][:, 0], [1, 3, 4, 4])


def test_the_weights_make_diffusers_prior_loss(encoded, dataset, scheduler):
    """instance mean + prior_loss_weight * class mean, each image weighted for its timestep"""
    collate = LoraCollate(
        encoded, dataset, scheduler, weighting_scheme="sigma_sqrt", prior_loss_weight=0.3
    )
    _, _, sigmas, _, weights, _, _, _ = collate([0, 1], draws())
    errors = np.random.default_rng(0).random((4, 6, 16))  # squared
    weighted = errors * (sigmas.astype(np.float64) ** -2).reshape(-1, 1, 1)
    expected = weighted[:2].mean() + 0.3 * weighted[2:].mean()
    assert (weights.reshape(-1, 1, 1) * errors).mean() == pytest.approx(expected, rel=1e-6)


def test_equal_draws_make_equal_batches_and_another_step_other_ones(encoded, dataset, scheduler):
    make = LoraCollate(encoded, dataset, scheduler, prior_loss_weight=1.0)
    first, again, other = (make([0, 1], draws(step)) for step in (5, 5, 6))
    for a, b, c in zip(first[:3], again[:3], other[:3]):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_empty_prompts_replace_captions_of_instances_only(encoded, dataset, scheduler):
    make = LoraCollate(
        encoded, dataset, scheduler, prior_loss_weight=1.0, proportion_empty_prompts=1.0
    )
    np.testing.assert_array_equal(make([0, 1], draws())[-2][:, 0], [0, 0, 4, 4])
