"""What is installed: recipes and named variants, found without importing any of them.

A distribution offers them as entry points:

    [options.entry_points]
    launcher.recipes =
        flux_controlnet = flux_controlnet_plugin.recipe
    launcher.variants =
        loss_average = my_package.loss_average

`launcher recipes` shows the result.
"""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path

from launcher.training.errors import UserError

RECIPES = "launcher.recipes"
VARIANTS = "launcher.variants"


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe as `launcher recipes` lists it.

    Attributes:
        name: what `--recipe` takes.
        distribution: the installed distribution that offers it.
        version: that distribution's version.
        module: the module that implements the hooks.
        summary: the first line of the module's docstring, or "".
        error: why the recipe could not be used, as far as can be told without importing it.
    """

    name: str
    distribution: str
    version: str
    module: str
    summary: str
    error: str | None = None


def near(word: str, possible: Iterable[str], cutoff: float = 0.6) -> str:
    """`"; did you mean `x`?"`, or "" if nothing comes as close as the cutoff (1 is equal)."""
    matches = difflib.get_close_matches(word, list(possible), n=1, cutoff=cutoff)
    return f"; did you mean `{matches[0]}`?" if matches else ""


def offered(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name; more than one where distributions clash."""
    by_name: dict[str, list[EntryPoint]] = {}
    for entry in sorted(importlib.metadata.entry_points(group=group), key=_identity):
        by_name.setdefault(entry.name, []).append(entry)
    return by_name


def distribution_of(entry: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that offers an entry point."""
    assert entry.dist is not None, "entry_points() always sets it"
    return entry.dist.metadata["Name"], entry.dist.version


def list_recipes() -> list[RecipeInfo]:
    """All installed recipes by name. Imports none of them; a broken one carries its error."""
    infos = []
    for name, entries in offered(RECIPES).items():
        clash = _clash(entries) if len(entries) > 1 else None
        for entry in entries:
            distribution, version = distribution_of(entry)
            summary, error = _look_into(entry)
            infos.append(
                RecipeInfo(name, distribution, version, entry.value, summary, clash or error)
            )
    return infos


def recipe_entry(name: str) -> EntryPoint:
    """The entry point of a recipe; its module exists.

    Raises:
        UserError: no distribution offers it, two do, or its module does not exist.
    """
    entries = offered(RECIPES)
    if name not in entries:
        hint = near(name, entries)
        if name.endswith(".py"):
            hint = (
                "; a recipe is the name of an installed plugin, a file is added to one with "
                f"`-p {name}`"
            )
        raise UserError(f"there is no recipe `{name}`{hint or '.'} {installed_recipes(entries)}")
    return _only(entries[name])


def variant_entry(name: str) -> EntryPoint:
    """The entry point of a named variant; its module exists.

    Raises:
        UserError: no distribution offers it, two do, or its module does not exist.
    """
    entries = offered(VARIANTS)
    if name not in entries:
        installed = ", ".join(entries) or "none"
        hint = near(name, entries)
        if Path(f"{name}.py").is_file():
            hint = f"; did you mean the file, `-p {name}.py`?"
        raise UserError(
            f"there is no variant `{name}`{hint or '.'} A variant is a file, given by its path, "
            f"which ends in .py, or the name of an installed one. Installed: {installed}."
        )
    return _only(entries[name])


def installed_recipes(entries: Iterable[str] | None = None) -> str:
    """A sentence or two that name the installed recipes."""
    names = list(offered(RECIPES) if entries is None else entries)
    if not names:
        return (
            "No recipe is installed in this environment; `pip install flux-controlnet-plugin` "
            "brings `flux_controlnet`."
        )
    return f"Installed: {', '.join(names)}. `launcher recipes` describes them."


def config_folder(entry: EntryPoint) -> Path | None:
    """The folder of YAML files next to a recipe's module, found without importing it."""
    spec = _find_chain(_module_name(entry))[-1]
    return Path(spec.origin).parent / "configs" if spec.has_location and spec.origin else None


def _identity(entry: EntryPoint) -> tuple[str, str, str]:
    return entry.name, entry.dist.name if entry.dist else "", entry.value


def _only(entries: list[EntryPoint]) -> EntryPoint:
    if len(entries) > 1:
        raise UserError(f"`{entries[0].name}` is {_clash(entries)}")
    (entry,) = entries
    try:
        _find_chain(_module_name(entry))
    except LookupError as error:
        distribution, version = distribution_of(entry)
        raise UserError(
            f"`{entry.name}` cannot be loaded: {error}. The distribution {distribution} {version} "
            f"declares it as `{entry.name} = {entry.value}`; install it again, or mend that line "
            "of its metadata."
        ) from None
    return entry


def _clash(entries: list[EntryPoint]) -> str:
    names = [f"{' '.join(distribution_of(e))} ({e.value})" for e in entries]
    owners = [distribution_of(e)[0] for e in entries]
    return (
        f"offered by {len(entries)} installed distributions, {' and '.join(names)}, and there is "
        f"no telling which one is meant. Uninstall all but one, e.g. `pip uninstall {owners[-1]}`."
    )


def _module_name(entry: EntryPoint) -> str:
    """The module an entry point names; LookupError if it names something else."""
    match = entry.pattern.match(entry.value)
    if match is None or match.group("attr"):
        raise LookupError(f"`{entry.value}` is not the name of a module")
    return str(match.group("module"))


def _find_chain(name: str) -> list[ModuleSpec]:
    """The specs of `a`, `a.b`, `a.b.c` for `a.b.c`, found without running any of them.

    `importlib.util.find_spec` would import the parents.

    Raises:
        LookupError: one of them does not exist.
    """
    top, *rest = name.split(".")
    chain = [_find_top(top)]
    for part in rest:
        parent = chain[-1]
        full_name = f"{parent.name}.{part}"
        search = parent.submodule_search_locations
        spec = None if search is None else PathFinder.find_spec(full_name, search)
        if spec is None:
            raise LookupError(f"there is no module `{full_name}`")
        chain.append(spec)
    return chain


def _find_top(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # in sys.modules without a spec
        spec = None
    if spec is None:
        raise LookupError(f"there is no module `{name}`")
    return spec


def _look_into(entry: EntryPoint) -> tuple[str, str | None]:
    """Summary and error of a recipe, from its source."""
    try:
        summary = ""
        for spec in _find_chain(_module_name(entry)):
            source = spec.loader.get_source(spec.name) if _has_source(spec) else None  # type: ignore[union-attr]
            if source is None:  # namespace package, extension module
                continue
            tree = ast.parse(source, spec.origin or spec.name)
            for missing in _missing_imports(tree):
                return "", f"{spec.origin} imports `{missing}`, which is not installed"
            summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    except LookupError as error:
        return "", str(error)
    except SyntaxError as error:
        return "", f"{error.filename}:{error.lineno}: {error.msg}"
    except Exception as error:  # whatever is wrong with one recipe, the others are listed
        return "", f"{type(error).__name__}: {error}"
    return summary, None


def _has_source(spec: ModuleSpec) -> bool:
    return hasattr(spec.loader, "get_source")


def _missing_imports(tree: ast.Module) -> Iterable[str]:
    """Modules that are imported unconditionally and cannot be found."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            try:
                _find_top(name.partition(".")[0])
            except LookupError:
                yield name
