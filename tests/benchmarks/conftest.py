import shutil
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def parity():
    """`benchmarks/parity.py`, which imports its neighbours as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import parity

        yield parity
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="session")
def reference_dir(data_dir, tiny_flux, tmp_path_factory):
    """All committed cases beside tests/data/tiny-flux, which they were made with."""
    folder = tmp_path_factory.mktemp("reference")
    for name in ("parity", "parity_lora"):
        shutil.copytree(data_dir / name, folder, dirs_exist_ok=True)
    (folder / "tiny-flux").symlink_to(tiny_flux)
    return folder
