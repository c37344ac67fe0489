"""Import of a package only what is used.

The `__init__` of mindone.transformers imports some 300 models, of which FLUX has two; that took two
thirds of the time in which a run imports everything. `importlib.util.LazyLoader` would put it off
only until the first name is asked for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any


def import_on_demand(package: str) -> None:
    """Put a package in place whose names are imported when they are first asked for.

    What its `__init__` always imports from its own modules comes straight from there. For any other
    name the `__init__` is executed after all, so that nothing is missing. A package that has been
    imported is left as it is.

    Args:
        package: the full name of a package in another that can be imported; written in Python.

    Raises:
        ModuleNotFoundError: there is none of this name.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    assert isinstance(spec.loader, InspectLoader)
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _OnDemand
    assert isinstance(module, _OnDemand)
    module._read(ast.parse(spec.loader.get_source(package) or ""))
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    setattr(sys.modules[parent], name, module)


class _OnDemand(ModuleType):
    """A package whose `__init__` has been read and not executed.

    Attributes:
        _places: name -> the module of the package that it is in, and its name there; None: it is
            that module.
    """

    _places: dict[str, tuple[str, str | None]]

    def _read(self, init: ast.Module) -> None:
        self._places = {}
        for statement in init.body:
            if isinstance(statement, ast.ImportFrom) and statement.level == 1:
                for imported in statement.names:
                    place = (
                        (f".{statement.module}", imported.name)
                        if statement.module
                        else (f".{imported.name}", None)
                    )
                    self._places[imported.asname or imported.name] = place
                continue
            for node in ast.walk(statement):  # perhaps bound again: then only executing it tells
                self._places.pop(_bound_by(node) or "", None)
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                for target in statement.targets:
                    if isinstance(target, ast.Name):  # __version__, which its modules ask for
                        setattr(self, target.id, statement.value.value)

    def __getattr__(self, name: str) -> Any:
        if name in self._places:
            module, inside = self._places[name]
            value: Any = importlib.import_module(module, self.__name__)
            if inside is not None:
                value = getattr(value, inside)
            setattr(self, name, value)
            return value
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        # As if it were imported now.
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            self.__spec__.loader.exec_module(self)
        except BaseException:
            self.__class__ = _OnDemand  # whoever asks next is to be told why, too
            raise
        return getattr(self, name)


def _bound_by(node: ast.AST) -> str | None:
    """The name that a part of a statement gives something to."""
    if isinstance(node, ast.alias):
        return node.asname or node.name
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    return None
