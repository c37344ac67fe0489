"""Few points of many, and nothing that stands out is lost."""

import numpy as np
import pytest

from launcher.report.downsample import extremes, smoothed, summaries, window

NAN = np.nan


def test_every_extreme_stays_and_the_points_are_few():
    rng = np.random.default_rng(0)
    x, y = np.arange(100_000.0), rng.standard_normal(100_000)
    y[[5, 77_777, 99_990]] = 50, -70, 60
    ((xs, ys),) = extremes(x, y, 500, 0, 99_999)
    assert len(xs) <= 1002
    assert {50, -70, 60} <= set(ys)
    assert (np.diff(xs) > 0).all()
    assert (xs[0], xs[-1]) == (0, 99_999)
    assert (y[xs.astype(int)] == ys).all()
    for bucket in range(500):  # against the definition
        inside = (x >= bucket * 99_999 / 500) & (x < (bucket + 1) * 99_999 / 500)
        drawn = np.isin(x[inside], xs)
        assert {y[inside].min(), y[inside].max()} <= set(y[inside][drawn])


def test_fewer_points_than_buckets_are_all_drawn():
    x, y = np.array([1.0, 2, 3, 4]), np.array([4.0, 4, 1, 4])
    ((xs, ys),) = extremes(x, y, 500, 1, 4)
    assert xs.tolist() == [1, 2, 3, 4] and ys.tolist() == [4, 4, 1, 4]


def test_a_line_is_interrupted_where_nothing_is_finite():
    x, y = np.arange(7.0), np.array([NAN, 1, NAN, 2, 3, NAN, NAN])
    pieces = extremes(x, y, 100, 0, 6)
    assert [(xs.tolist(), ys.tolist()) for xs, ys in pieces] == [([1], [1]), ([3, 4], [2, 3])]
    assert extremes(x, np.full(7, NAN), 100, 0, 6) == []


def test_one_value_among_hundreds_does_not_interrupt_it():
    x, y = np.arange(1000.0), np.sin(np.arange(1000.0))
    y[500] = NAN
    assert len(extremes(x, y, 10, 0, 999)) == 1


def test_a_single_step_and_steps_that_occur_twice():
    ((xs, ys),) = extremes(np.array([5.0]), np.array([1.0]), 100, 5, 5)
    assert xs.tolist() == [5] and ys.tolist() == [1]
    ((xs, ys),) = extremes(np.array([1.0, 1, 2]), np.array([3.0, 1, 2]), 100, 1, 2)
    assert xs.tolist() == [1, 1, 2] and ys.tolist() == [3, 1, 2]


def test_smoothed_is_the_mean_around_a_point():
    x, y = np.arange(100.0), np.arange(100.0) ** 2
    y[50] = NAN
    ((xs, means),) = smoothed(x, y, 5, 1000)
    assert len(xs) == 99 and 50 not in xs
    assert means[xs == 20] == np.mean(y[18:23])
    assert means[xs == 49] == np.mean([47**2, 48**2, 49**2, 51**2, 52**2])
    assert means[0] == np.mean(y[:3])


def test_a_huge_value_does_not_spoil_the_means_after_it():
    y = np.ones(1000)
    y[10] = 1e20
    ((_, means),) = smoothed(np.arange(1000.0), y, 21, 1000)
    assert (means[30:] == 1).all()


@pytest.mark.parametrize(
    ("count", "width"), [(0, 1), (29, 1), (30, 5), (1000, 21), (100_000, 2001)]
)
def test_window(count, width):
    assert window(count) == width


def test_summaries():
    x, y = np.array([0.0, 1, 2, 3, 10]), np.array([1.0, 3, NAN, 5, 7])
    assert summaries(x, y, 2, 0, 10) == [(0, 3, 3, 1, 5), (10, 10, 7, 7, 7)]
    assert summaries(x, np.full(5, NAN), 2, 0, 10) == []
