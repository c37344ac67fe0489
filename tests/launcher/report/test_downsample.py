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


@pytest.mark.parametrize("gap", [[500], range(420, 610)], ids=["one", "many"])
@pytest.mark.parametrize(
    "pieces_of",
    [lambda x, y: extremes(x, y, 10, 0, 999), lambda x, y: smoothed(x, y, 21, 50)],
    ids=["extremes", "smoothed"],
)
def test_so_it_is_where_few_of_the_points_are_drawn(pieces_of, gap):
    x, y = np.arange(1000.0), np.sin(np.arange(1000.0))
    y[gap] = NAN
    (before, _), (after, values) = pieces_of(x, y)
    assert before[-1] < min(gap) and max(gap) < after[0]
    assert len(before) > 8 and len(after) > 8 and np.isfinite(values).all()


def test_pieces_are_no_more_than_the_points():
    rng = np.random.default_rng(0)
    x, y = np.arange(100_000.0), rng.standard_normal(100_000)
    y[rng.random(100_000) < 0.3] = NAN
    assert sum(len(xs) for xs, _ in extremes(x, y, 500, 0, 99_999)) <= 1002
    assert sum(len(xs) for xs, _ in smoothed(x, y, 2001, 280)) == 280


def test_a_single_step_and_steps_that_occur_twice():
    ((xs, ys),) = extremes(np.array([5.0]), np.array([1.0]), 100, 5, 5)
    assert xs.tolist() == [5] and ys.tolist() == [1]
    ((xs, ys),) = extremes(np.array([1.0, 1, 2]), np.array([3.0, 1, 2]), 100, 1, 2)
    assert xs.tolist() == [1, 1, 2] and ys.tolist() == [3, 1, 2]


def test_smoothed_is_the_mean_around_a_point():
    x, y = np.arange(100.0), np.arange(100.0) ** 2
    y[50] = NAN
    (xs, means), (later, _) = smoothed(x, y, 5, 1000)
    assert xs.tolist() == list(range(50)) and later.tolist() == list(range(51, 100))
    assert means[20] == np.mean(y[18:23])
    assert means[49] == np.mean([47**2, 48**2, 49**2, 51**2])
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
