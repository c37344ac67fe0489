"""Fixtures shared by all tests. Compiled cells are session-wide: a compilation takes seconds."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: The files that take longest, in this order.
LONG = [
    "test_run", "test_variants", "test_run_cache", "test_bf16", "test_parity_lora", "test_run_bf16",
    "test_loss", "test_models", "test_run_fp16", "test_autoencoder_recipe", "test_run_lora",
    "test_own_launcher", "test_parity",
]  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first, so that workers end at about the same time (pytest-xdist hands out files in
    this order, with --no-loadscope-reorder)."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory):
    """The user's cache folder, new, shared by everything in this session: what one test has had
    encoded, the next finds."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "user-cache"))
        yield


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
    return ROOT / "tests" / "data" / "tiny-flux"


@pytest.fixture(scope="session")
def one_layer_flux():
    """The first layers of its networks, and the same VAE, where depth is not what is tested: it
    compiles in half the time."""
    return ROOT / "tests" / "data" / "one-layer-flux"


@pytest.fixture(scope="session")
def data_dir():
    return ROOT / "tests" / "data"


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of its own of some size in bytes: its folder, and a way to make it
    read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this container may not mount")
        return folder

    mount.read_only = lambda: subprocess.run(
        ["mount", "-o", "remount,ro", str(folder)], check=True, capture_output=True
    )
    yield mount
    # Lazily: a test may still have files open.
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
