"""Packages of which only what is used is imported."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from launcher.training.on_demand import import_on_demand

INIT = """
    import json as data
    from .models.round import Circle, Disc as Ellipse
    from . import tools
    from .models.angular import Square, Corner, Edge

    class Corner: "wrapped"

    Edge = Corner

    __version__ = "1.2"
    if len(__version__) > 2:
        from .models.other import Square
    from .models.stars import *
    LOADED = bool(data)
"""
MODULES = {
    "__init__": INIT,
    "models/__init__": "from . import round, angular, broken",
    "models/round": "from .. import __version__\n\nclass Circle: pass\nclass Disc: pass",
    "models/angular": "class Square: 'angular'\nCorner = Edge = Square",
    "models/other": "class Square: 'other'",
    "models/stars": "from .. import Circle\n\nclass Star(Circle): pass",
    "models/broken": "from nowhere import nothing",
    "tools": "SIZE = 3",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """mind.shapes, on demand."""
    for name, source in MODULES.items():
        path = tmp_path / "mind" / "shapes" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    (tmp_path / "mind" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import_on_demand("mind.shapes")
    yield sys.modules["mind.shapes"]
    for name in loaded():
        del sys.modules[name]


def loaded():
    return {name for name in sys.modules if name.partition(".")[0] == "mind"}


def test_a_name_is_imported_from_where_it_is(package):
    assert loaded() == {"mind", "mind.shapes"}
    import_on_demand("mind.shapes.models")
    from mind.shapes import Circle, Ellipse

    assert Ellipse is sys.modules["mind.shapes.models.round"].Disc
    assert package.Circle is Circle
    assert loaded() == {"mind", "mind.shapes", "mind.shapes.models", "mind.shapes.models.round"}
    from mind.shapes import tools

    assert tools.SIZE == 3
    from mind.shapes.models import angular

    assert angular.Square.__doc__ == "angular"
    assert "LOADED" not in vars(package)


def test_its_constants_are_there(package):
    assert package.__version__ == "1.2"
    assert loaded() == {"mind", "mind.shapes"}


@pytest.mark.parametrize("name", ["Star", "LOADED", "data", "Square", "Edge"])
def test_for_any_other_name_all_of_it_is_imported(package, name):
    import_on_demand("mind.shapes.models")
    assert getattr(package, name)
    assert package.LOADED
    assert package.Square.__doc__ == "other"
    assert package.Star.__base__ is package.Circle
    assert package.Edge is package.Corner and package.Corner.__doc__ == "wrapped"


def test_a_name_that_it_has_not_is_missed(package):
    import_on_demand("mind.shapes.models")
    with pytest.raises(AttributeError, match=r"module 'mind\.shapes' has no attribute 'Line'"):
        _ = package.Line
    with pytest.raises(ImportError, match="cannot import name 'Line'"):
        from mind.shapes import Line  # noqa: F401
    with pytest.raises(AttributeError, match="__wrapped__"):
        _ = package.__wrapped__


def test_everything_is_everything(package):
    import_on_demand("mind.shapes.models")
    names = {}
    exec("from mind.shapes import *", names)
    assert {"Circle", "Ellipse", "Square", "Star", "tools", "LOADED"} <= names.keys()


def test_what_fails_in_it_fails(package):
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        _ = package.Circle  # of mind.shapes.models, which imports all of its modules
    import_on_demand("mind.shapes.models")
    (Path(package.__file__).parent / "models" / "other.py").unlink()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match=r"mind\.shapes\.models\.other"):
            _ = package.LOADED


def test_an_imported_package_is_left_as_it_is(package):
    import_on_demand("mind.shapes")
    assert sys.modules["mind.shapes"] is package


def test_a_package_that_is_not_there_is_not_found(package):
    with pytest.raises(ModuleNotFoundError, match=r"mind\.sizes"):
        import_on_demand("mind.sizes")


def test_mindones_encoders_come_without_its_other_models():
    code = """
        import sys
        from launcher.training import device

        device.set_up("CPU", 0, "graph")
        from mindone.diffusers import FluxControlNetPipeline
        from mindone.transformers import CLIPTextModel, T5EncoderModel

        prefix = "mindone.transformers.models."
        print(*{m.removeprefix(prefix).split(".")[0] for m in sys.modules if m.startswith(prefix)})
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    models = set(process.stdout.splitlines()[-1].split())
    assert {"clip", "t5"} <= models
    assert len(models) < 30
