"""Runs to make a report of."""

import pytest

from benchmarks.synthetic_run import make


@pytest.fixture
def run(tmp_path):
    """A finished run with validations; its folder."""
    return make(tmp_path / "first", 300, validations=3)


@pytest.fixture
def another(tmp_path):
    """One with other options, and no validation."""
    return make(tmp_path / "second", 200, seed=1, learning_rate=5e-6)
