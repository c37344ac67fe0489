"""Learning rates against values saved from diffusers (tests/data/make_schedules.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from launcher.training.schedule import Schedule, learning_rate, parse_step_rules, problems

CASES = json.loads((Path(__file__).parents[2] / "data" / "schedules.json").read_text())["cases"]


def settings(case):
    return {key: value for key, value in case.items() if key != "rates"}


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: " ".join(map(str, settings(case).values()))
)
def test_every_step_has_the_rate_that_diffusers_sets(case):
    rates = [learning_rate(step, **settings(case)) for step in range(len(case["rates"]))]
    assert rates == pytest.approx(case["rates"], rel=1e-14, abs=1e-16 * case["base"])


def test_every_schedule_has_reference_values():
    assert {case["schedule"] for case in CASES} == set(get_args(Schedule))


def test_the_first_step_of_a_warm_up_has_the_rate_zero_and_the_first_after_it_the_full_rate():
    rates = [
        learning_rate(step, schedule="linear", base=1e-4, total_steps=100, warmup_steps=10)
        for step in (0, 5, 10)
    ]
    assert rates == [0.0, 5e-5, 1e-4]


def test_polynomial_with_nothing_left_after_the_warm_up_ends_where_it_always_ends():
    # diffusers divides by zero here.
    rate = learning_rate(8, schedule="polynomial", base=1e-4, total_steps=8, warmup_steps=8)
    assert rate == pytest.approx(1e-7)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'cosin'"):
        learning_rate(0, schedule="cosin", base=1e-4, total_steps=8)


def test_step_rules_are_read_in_rising_order():
    assert parse_step_rules("0.1:20, 1:10, 0.01") == ([(10, 1.0), (20, 0.1)], 0.01)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("", "must end with the factor"),
        ("1:10", "must end with the factor"),
        ("1:10,", "must end with the factor"),
        ("1:10,0.1:20,nan", "must end with the factor"),
        ("1-10,0.1", "'1-10'"),
        ("x:10,0.1", "'x:10'"),
        ("1:ten,0.1", "'1:ten'"),
        ("1:-10,0.1", "'1:-10'"),
        ("-1:10,0.1", "'-1:10'"),
        ("1:10,0.1:10,0.01", "step 10 twice"),
    ],
)
def test_step_rules_that_cannot_be_read_say_which_part_and_how_to_write_it(rules, said):
    with pytest.raises(ValueError) as error:
        parse_step_rules(rules)
    assert said in str(error.value)
    assert '"1:1000,0.1:2000,0.01"' in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"schedule": "polynomial", "base": 1e-7}, "must be above that; it is 1e-07"),
        ({"schedule": "cosine", "warmup_steps": 100}, "warm-up of 100 steps"),
        ({"schedule": "piecewise_constant"}, "must end with the factor"),
        ({"schedule": "linear", "step_rules": "1:10,0.1"}, "belong to the schedule"),
    ],
)
def test_settings_that_do_not_go_together_are_named(wrong, said):
    (problem,) = problems(**{"base": 1e-4, "total_steps": 100, **wrong})
    assert said in problem


@pytest.mark.parametrize("schedule", [s for s in get_args(Schedule) if s != "piecewise_constant"])
def test_sensible_settings_have_no_problems(schedule):
    assert problems(schedule=schedule, base=1e-4, total_steps=100, warmup_steps=10) == []


def test_a_constant_rate_may_have_any_warm_up_since_it_ignores_it():
    # The diffusers scripts default to a warm-up of 500 steps, whatever the length of the run.
    assert problems(schedule="constant", base=1e-4, total_steps=60, warmup_steps=500) == []
