"""The recipe's numbers against diffusers on torch: encoders, forward, gradients, three steps.

A small non-square case; `python benchmarks/parity.py` compares any other (see its docstring).
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
CASE = "rand_d1s0"

LIMITS = {
    "loss_abs": 2e-6,
    "noise_pred_max_abs": 5e-6,
    "grad_rel_l2_worst": 1e-4,
    "losses_after_steps_max_abs": 2e-6,
    "t5_max_abs": 2e-5,
    "clip_max_abs": 5e-6,
    "vae_moments_max_abs": 5e-6,
}


@pytest.fixture(scope="module")
def parity():
    """`benchmarks/parity.py`, which imports its neighbours as scripts do."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import parity

        yield parity
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def reference_dir(data_dir, tiny_flux, tmp_path_factory):
    """The committed case beside the quickstart's pipeline, which it was made with."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copytree(data_dir / "parity", folder, dirs_exist_ok=True)
    (folder / "tiny-flux").symlink_to(tiny_flux)
    return folder


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
    expected = {"grad/a": np.ones(4, np.float32), "grad/b": np.ones(4, np.float32)}
    found = {"a": np.ones(4, np.float32), "b": np.array([1, 1, 1, 1.002], np.float32)}
    assert parity.worst_gradient(found, expected) == pytest.approx(1e-3, rel=1e-3)


def test_a_gradient_that_torch_has_not_must_be_zero(parity):
    assert parity.worst_gradient({"a": np.zeros(3, np.float32)}, {}) == 0
    assert parity.worst_gradient({"a": np.full(4, 0.5, np.float32)}, {}) == pytest.approx(1)
