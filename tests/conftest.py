"""Fixtures shared by all tests. Compiled cells are session-wide: a compilation takes seconds."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def substitutes_gradients(monkeypatch):
    """Gradient checkpointing turns them off for the whole process."""
    from launcher.cpu import gradients

    monkeypatch.setattr(gradients, "written_out", True)


@pytest.fixture(scope="session")
def graph_mode():
    """MindSpore on CPU in graph mode, with the launcher's substitutes: as in a run."""
    from launcher.training import device

    device.set_up("CPU", 0, "graph")
    device.supply_what_lacks()


@pytest.fixture(scope="session")
def tiny_flux():
    """A FLUX.1-dev-shaped pipeline folder with random weights, 1.9 MB."""
    return ROOT / "examples" / "quickstart" / "tiny-flux"


@pytest.fixture(scope="session")
def data_dir():
    return ROOT / "tests" / "data"
