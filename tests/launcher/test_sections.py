"""Checks across options of one section."""

import pytest

from launcher.sections import OptimizerSection


@pytest.mark.parametrize(
    "name, option, value",
    [
        ("adamw", "stochastic_rounding", True),
        ("adamw_bf16", "stochastic_rounding", True),
        ("muon", "came_beta3", 0.99),
        ("came", "muon_momentum", 0.9),
        ("came", "adam_epsilon", 1e-6),
    ],
)
def test_an_option_that_the_optimizer_does_not_use_is_an_error(name, option, value):
    (problem,) = OptimizerSection(name=name, **{option: value}).problems()
    assert f"optimizer.{option} is " in problem
    assert f"optimizer.name={name} does not use" in problem


@pytest.mark.parametrize(
    "options",
    [
        {"name": "adamw_upcast", "stochastic_rounding": True},
        {"name": "came", "came_beta3": 0.99},
        {"name": "muon", "muon_momentum": 0.9, "adam_epsilon": 1e-6},
        {"name": "came"},
    ],
)
def test_an_option_that_it_uses_is_none(options):
    assert list(OptimizerSection(**options).problems()) == []
