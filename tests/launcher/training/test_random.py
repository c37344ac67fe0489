import numpy as np
import pytest

from launcher.training.random import StepDraws, generator


def test_equal_arguments_give_equal_numbers_and_any_difference_gives_others():
    def first(*arguments):
        return generator(*arguments).random(4).tolist()

    base = first(3, "noise", 10, 2)
    assert first(3, "noise", 10, 2) == base
    for other in [
        (4, "noise", 10, 2),
        (3, "timestep", 10, 2),
        (3, "noise", 11, 2),
        (3, "noise", 10, 3),
        (3, "noise", 2, 10),
    ]:
        assert first(*other) != base


def test_streams_of_neighbouring_counters_do_not_overlap():
    # A long stream must not run into the stream of the next step.
    here = generator(0, "noise", 0).random(100_000)
    there = generator(0, "noise", 1).random(100_000)
    assert not np.intersect1d(here, there).size


def test_two_processes_draw_what_one_would():
    whole = StepDraws(seed=1, step=7, slots=[0, 1, 2, 3])
    shares = [StepDraws(seed=1, step=7, slots=slots) for slots in ([0, 1], [2, 3])]
    for draw in (lambda d: d.uniform("u"), lambda d: d.normal("n", (2, 3))):
        np.testing.assert_array_equal(np.concatenate([draw(s) for s in shares]), draw(whole))


def test_a_sample_that_occurs_twice_in_a_batch_gets_two_noises():
    noise = StepDraws(seed=1, step=0, slots=[0, 1]).normal("noise", (8,))
    assert not np.array_equal(noise[0], noise[1])


def test_normal_is_standard_normal_float32():
    noise = StepDraws(seed=0, step=0, slots=range(4)).normal("noise", (50_000,))
    assert noise.dtype == np.float32
    assert noise.shape == (4, 50_000)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_more_than_three_counters_are_refused():
    with pytest.raises(ValueError, match="three counters"):
        generator(0, "noise", 1, 2, 3, 4)
