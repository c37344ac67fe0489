"""The ControlNet recipe's numbers against diffusers on torch: encoders, forward, gradients, steps.

A small non-square case; `python benchmarks/parity.py` compares any other (see its docstring).
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.benchmarks.limits import LIMITS

CASE = "rand_d1s0"


@pytest.fixture(scope="module")
def figures(graph_mode, parity, reference_dir):
    return parity.compare(reference_dir, CASE)


@pytest.mark.parametrize("name", LIMITS)
def test_figure_is_within_its_limit(figures, name):
    assert figures[name] <= LIMITS[name]


def test_what_the_case_has_not_is_null(figures):
    assert figures["params_after_3_max_abs"] is None
    assert figures["fresh_controlnet_equals_base"] is None


def test_the_case_reaches_every_parameter_that_can_be_reached(reference_dir):
    """Otherwise a gradient compared with nothing would agree."""
    folder = reference_dir / "cases" / CASE
    meta = json.loads((folder / "meta.json").read_text())
    names = {n for n in load_file(folder / "outputs.safetensors") if n.startswith("grad/")}
    assert len(names) + len(meta["grads_none"]) == meta["n_params"]
    # The text stream's last output and query are used by nothing after it.
    text_only = ("to_add_out", "ff_context", "norm_added_q", "add_q_proj")
    unreached = meta["grads_none"] + meta["grads_all_zero"]
    assert all(any(part in name for part in text_only) for name in unreached)


def test_a_gradient_that_differs_shows(parity):
    from parity_common import worst_gradient

    expected = {"grad/a": np.ones(4, np.float32), "grad/b": np.ones(4, np.float32)}
    found = {"a": np.ones(4, np.float32), "b": np.array([1, 1, 1, 1.002], np.float32)}
    assert worst_gradient(found, expected) == pytest.approx(1e-3, rel=1e-3)


def test_a_gradient_that_torch_has_not_must_be_zero(parity):
    from parity_common import worst_gradient

    assert worst_gradient({"a": np.zeros(3, np.float32)}, {}) == 0
    assert worst_gradient({"a": np.full(4, 0.5, np.float32)}, {}) == pytest.approx(1)
