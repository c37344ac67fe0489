"""Axes: everything is on them, and their labels are few and round."""

import numpy as np
import pytest

from launcher.report import formats
from launcher.report.axes import of_steps, of_values


def axis(values, unit=formats.NUMBER, *, from_zero=False, may_be_log=True):
    return of_values(np.array(values, float), unit, from_zero=from_zero, may_be_log=may_be_log)


@pytest.mark.parametrize(
    "values",
    [[0.31, 0.9], [5, 5], [0, 0], [-3, 7], [1e-12, 3e-12], [1e300, -1e300], [1, 1e9], [-2, -2],
     [2e-5, 9e4, 1], [1.7e308, 1e307], [5e-324, 1]],
)  # fmt: skip
@pytest.mark.parametrize("from_zero", [True, False])
def test_everything_is_on_the_axis(values, from_zero):
    made = axis(values, from_zero=from_zero)
    places = made.place(np.array(values, float))
    assert (places >= -1e-9).all() and (places <= 1 + 1e-9).all()
    assert 1 <= len(made.ticks) <= 9
    assert len(set(made.labels)) == len(made.labels)


def test_linear():
    made = axis([0.31, 0.9])
    assert (made.low, made.high, made.is_log) == (0.2, 1.0, False)
    assert made.labels == ("0.2", "0.4", "0.6", "0.8", "1.0")
    assert axis([0.31, 0.9], from_zero=True).low == 0


def test_logarithmic_where_one_value_is_far_above_the_others():
    made = axis([1, 1.1, 1.2, 400])
    assert made.is_log and made.labels == ("1", "10", "100")
    assert not axis([1, 1.1, 1.2, 400], may_be_log=False).is_log
    assert not axis([0, 1.1, 1.2, 400]).is_log  # zero has no place on it


def test_units():
    assert axis([0, 2e9], formats.BYTES).labels[-1] == "2.00 GB"
    assert axis([0, 0.4], formats.SHARE).labels == ("0 %", "10 %", "20 %", "30 %", "40 %")
    assert axis([0.1, 0.4], formats.SECONDS, from_zero=True).labels[1] == "100 ms"


def test_steps():
    assert of_steps(1, 100_000).labels == ("20k", "40k", "60k", "80k", "100k")
    assert of_steps(1, 3).labels == ("1", "2", "3")
    assert of_steps(7, 7).place(np.array([7.0])) == 0.5


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.31236, "0.3124"), (0, "0"), (12345.6, "12,346"), (1e-5, "1e-5"), (2.5e7, "2.5e7"),
     (float("nan"), "–"), (100, "100"), (-0.5, "-0.5")],
)  # fmt: skip
def test_numbers(value, written):
    assert formats.number(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0123, "12.3 ms"), (4, "4 s"), (250, "4 min 10 s"), (7500, "2 h 5 min"),
     (273600, "3 d 4 h"), (3600, "1 h"), (0.9999, "1 s"), (0, "0 ms")],
)  # fmt: skip
def test_seconds(value, written):
    assert formats.seconds(value) == written
