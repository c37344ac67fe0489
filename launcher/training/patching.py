"""Replace attributes of installed packages, and say clearly when one is no longer there.

This module knows how to replace, not what: the list is in :mod:`launcher.cpu.substitutes`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# The pairs that the tests in tests/launcher/cpu have passed with.
KNOWN_VERSIONS = {"mindspore": ("2.7.0", "2.10.0"), "mindone": ("0.5.0",)}


class UnsupportedVersionError(RuntimeError):
    """A name that has to be replaced on the CPU does not exist in the installed version."""


@dataclass(frozen=True)
class Substitute:
    """One replaced name.

    Attributes:
        module: The importable module that holds the name, ``"mindspore.mint"``.
        attribute: The name in it; ``"Class.method"`` replaces the method for the whole class and
            so also for subclasses and for every place the class was imported into.
        replacement: What takes its place: a function with the signature of the original (or a
            ``staticmethod`` of one). It lives in a file, because graph mode compiles its source.
        why: ``"no kernel"``, ``"inaccurate"`` or ``"slow"``, and the detail.
    """

    module: str
    attribute: str
    replacement: Callable | staticmethod
    why: str

    @property
    def name(self) -> str:
        return f"{self.module}.{self.attribute}"


def _owner(substitute: Substitute) -> object:
    """The module or class whose attribute is to be set.

    Raises:
        UnsupportedVersionError: the module, the class, or the attribute is not there.
    """
    try:
        owner = importlib.import_module(substitute.module)
        *classes, last = substitute.attribute.split(".")
        for name in classes:
            owner = getattr(owner, name)
        # A method must be the class's own: setting an inherited one would shadow, not replace.
        present = last in vars(owner) if classes else hasattr(owner, last)
    except (ImportError, AttributeError):
        present = False
    if not present:
        raise UnsupportedVersionError(_explain(substitute))
    return owner


def _explain(substitute: Substitute) -> str:
    package = substitute.module.partition(".")[0]
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        installed = "(not installed)"
    known = "; ".join(f"{name} {', '.join(versions)}" for name, versions in KNOWN_VERSIONS.items())
    return (
        f"Running on CPU needs a substitute for {substitute.name} ({substitute.why}), but "
        f"{package} {installed} has no such name. It has probably been moved or renamed. "
        f"Versions known to work: {known}. Install those, or change the entry for "
        f"{substitute.attribute} in launcher/cpu/substitutes.py."
    )


def _follow_imports(original: object, replacement: object) -> None:
    """Also replace ``original`` where a MindONE module has imported it by name.

    ``from .layers_compat import scaled_dot_product_attention`` leaves a second reference that
    setting the attribute of ``layers_compat`` does not reach.
    """
    for module_name, module in list(sys.modules.items()):
        if module is None or module_name.partition(".")[0] != "mindone":
            continue
        # vars(), not getattr(): some of these modules import lazily on attribute access.
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, replacement)


def apply(substitutes: Iterable[Substitute]) -> None:
    """Put ``substitutes`` in place: all of them, or none if a name is missing. Repeatable.

    Raises:
        UnsupportedVersionError: see :func:`_owner`.
    """
    found = [(_owner(substitute), substitute) for substitute in substitutes]
    for owner, substitute in found:
        last = substitute.attribute.rpartition(".")[2]
        original = vars(owner)[last] if last in vars(owner) else getattr(owner, last)
        if original is substitute.replacement:
            continue
        setattr(owner, last, substitute.replacement)
        if "." not in substitute.attribute:
            _follow_imports(original, substitute.replacement)
