"""Fake installed distributions, as pip would leave them: modules and a .dist-info folder."""

import importlib
import sys
from textwrap import dedent

import pytest

#: A recipe that answers every hook the launcher has no default for.
RECIPE = '''\
"""Paints fences.

More about fences.
"""

from hooks import hookimpl


@hookimpl
def build_dataset(config, dist):
    return ["sample"]


@hookimpl
def build_models(config, stage):
    return {"fence": stage}


@hookimpl
def configure_trainable(config, models):
    return models


@hookimpl
def build_collate_fn(config, models, dataset, cache):
    return "collate"


@hookimpl
def build_loss(config, models):
    return "the recipe's loss"


@hookimpl
def export_weights(config, models, directory, values):
    return []
'''


@pytest.fixture
def recipe_source():
    return RECIPE


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages at the front of `sys.path`."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(site):
    """Install a distribution: `install("fences", {"launcher.recipes": {"fence": "fence_plugin"}},
    {"fence_plugin.py": source})`.
    """

    def write(distribution, entry_points, files, version="1.0"):
        for path, source in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(dedent(source))
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = []
        for group, entries in entry_points.items():
            lines.append(f"[{group}]")
            lines += [f"{name} = {value}" for name, value in entries.items()]
        info.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()

    return write


@pytest.fixture
def fence(install):
    """An installed, complete recipe `fence` in the package `fence_plugin`; its folder."""
    install(
        "fences",
        {"launcher.recipes": {"fence": "fence_plugin.recipe"}},
        {"fence_plugin/__init__.py": "", "fence_plugin/recipe.py": RECIPE},
        version="1.2",
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the working directory, which is a fresh folder; its path as text."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def write_file(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return name

    return write_file
