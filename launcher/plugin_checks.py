"""What can be wrong with a plugin, found before anything heavy happens.

pluggy itself would be silent about most of it: a function without mark, or with an unknown name,
is never called; an argument with a default is never filled. Here each is a sentence that says
what, where, and what next.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal

from hooks import PROJECT_NAME, specs
from launcher.entry_points import near

IMPL_MARK = f"{PROJECT_NAME}_impl"
SPEC_MARK = f"{PROJECT_NAME}_spec"

#: Every hook's specification by name, in call order.
SPECS: dict[str, Callable[..., Any]] = {
    name: function
    for name, function in vars(specs).items()
    if inspect.isfunction(function) and hasattr(function, SPEC_MARK)
}


@dataclass(frozen=True)
class Plugin:
    """A loaded module and where it came from.

    Attributes:
        name: the recipe's or variant's name; for a file, its path as the user knows it.
        role: the defaults are registered first, then the recipe, then the variants.
        module: its hook implementations are module-level functions.
        distribution: the distribution that installed it; None for a file.
        version: that distribution's version.
    """

    name: str
    role: Literal["defaults", "recipe", "variant"]
    module: ModuleType
    distribution: str | None = None
    version: str | None = None

    @property
    def file(self) -> str:
        """Path of its source."""
        return os.path.abspath(self.module.__file__ or "?")


@dataclass(frozen=True, eq=False)
class Implementation:
    """A function marked with `@hookimpl`.

    Attributes:
        hook: the hook it answers or wraps.
        plugin: the plugin it belongs to.
        name: its name in the module.
        function: the function.
        options: what was passed to `hookimpl`.
    """

    hook: str
    plugin: Plugin
    name: str
    function: Callable[..., Any]
    options: dict[str, Any]

    @property
    def is_wrapper(self) -> bool:
        """True for both styles of wrapper."""
        return bool(self.options.get("wrapper") or self.options.get("hookwrapper"))

    @property
    def arguments(self) -> list[str]:
        """The names of the arguments it takes."""
        return list(inspect.signature(self.function).parameters)

    @property
    def file(self) -> str:
        """Path of its source."""
        return location(self.function)[0]

    @property
    def line(self) -> int:
        """Line of its `def`."""
        return location(self.function)[1]

    @property
    def where(self) -> str:
        """`file:line`, the file relative to the working directory if it is below it."""
        return f"{display_path(self.file)}:{self.line}"


def location(function: Callable[..., Any]) -> tuple[str, int]:
    """File and line of a function's `def` (`co_firstlineno` is that of its first decorator)."""
    code = getattr(inspect.unwrap(function), "__code__", function.__code__)
    first = code.co_firstlineno
    try:
        lines, _ = inspect.getsourcelines(code)
    except OSError:  # the file is gone
        lines = []
    offset = next(
        (i for i, text in enumerate(lines) if text.lstrip().startswith(("def ", "async def "))), 0
    )
    return os.path.abspath(code.co_filename), first + offset


def display_path(path: str | Path) -> str:
    """A path as a user would type it: relative if it is below the working directory."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def implementations(plugin: Plugin) -> list[Implementation]:
    """The plugin's functions marked with `@hookimpl`, whether or not they are right.

    A function imported from elsewhere under another name is a value to call, not an
    implementation: `from flux_controlnet_plugin.recipe import build_loss as recipe_loss`.
    """
    found = []
    for name, value in vars(plugin.module).items():
        options = _mark(value, IMPL_MARK)
        if options is None or not isinstance(value, FunctionType):
            continue
        if _is_imported(value, plugin.module) and name not in SPECS:
            continue
        hook = options.get("specname") or name
        found.append(Implementation(hook, plugin, name, value, options))
    return found


def mistakes(plugin: Plugin) -> list[str]:
    """Everything that is wrong with one plugin, a paragraph each."""
    found = implementations(plugin)
    problems = [problem for impl in found for problem in _check(impl)]
    problems += _check_one_per_hook(found)
    problems += _check_unmarked(plugin)
    problems += _check_not_functions(plugin)
    problems += _check_methods(plugin)
    if not found and not problems:
        problems.append(
            f"{display_path(plugin.file)} implements no hook, so it would change nothing. Mark "
            "its functions with `@hookimpl` (`from hooks import hookimpl`); `launcher hooks` "
            "lists the hooks."
        )
    return problems


def _check(impl: Implementation) -> Iterator[str]:
    """What is wrong with one marked function."""
    here = f"{impl.where}: `{impl.name}`"
    if _is_imported(impl.function, impl.plugin.module):
        origin = impl.function.__module__
        yield (
            f"{display_path(impl.plugin.file)}: `{impl.name}` is imported from {origin} under the "
            "name of a hook, which leaves open whether it should answer the hook. To call it, "
            f"write `import {origin} as base` and `base.{impl.name}(...)`; to answer with it, "
            f"define `{impl.name}` here and return what that returns."
        )
        return
    if impl.hook not in SPECS:
        if not impl.options.get("optionalhook"):
            yield (
                f"{here} is marked with `@hookimpl`, but there is no hook `{impl.hook}`"
                f"{near(impl.hook, SPECS) or '.'} `launcher hooks` lists them."
            )
        return
    yield from _check_arguments(impl, here)
    yield from _check_kind(impl, here)


def _check_arguments(impl: Implementation, here: str) -> Iterator[str]:
    known = list(inspect.signature(SPECS[impl.hook]).parameters)
    takes = f"It can take {_listed(known)}." if known else "It takes no arguments."
    parameters = inspect.signature(impl.function).parameters
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            yield (
                f"{here} takes `{stars}{name}`, which would always be empty: a hook gets the "
                f"arguments that it names. {takes}"
            )
        elif name not in known:
            unused = [argument for argument in known if argument not in parameters]
            yield (
                f"{here} takes an argument `{name}` that the hook `{impl.hook}` does not have"
                f"{near(name, unused) or '.'} {takes}"
            )
        elif parameter.default is not parameter.empty:
            yield (
                f"{here} gives the argument `{name}` a default; arguments with defaults are not "
                f"filled, so it would always be {parameter.default!r}. Write `{name}` alone."
            )
        elif parameter.kind is parameter.KEYWORD_ONLY:
            yield f"{here} takes `{name}` by keyword only; write it before the `*`."


def _check_kind(impl: Implementation, here: str) -> Iterator[str]:
    generates = inspect.isgeneratorfunction(inspect.unwrap(impl.function))
    if inspect.iscoroutinefunction(impl.function) or inspect.isasyncgenfunction(impl.function):
        yield f"{here} is `async`, so calling it would not run it. Write `def` without `async`."
    if impl.options.get("wrapper") and impl.options.get("hookwrapper"):
        yield f"{here} is both `wrapper=True` and `hookwrapper=True`; write `wrapper=True` alone."
    if impl.is_wrapper and not generates:
        yield (
            f"{here} is a wrapper without `yield`. A wrapper's body is `result = yield`, with "
            "what comes before and after the call around it, and `return result` at the end."
        )
    if generates and not impl.is_wrapper:
        yield (
            f"{here} contains `yield`, so calling it only makes a generator. If it should wrap "
            "the hook, mark it `@hookimpl(wrapper=True)`; otherwise return a value."
        )
    if specs.kind_of(SPECS[impl.hook]) == "owned" and not impl.is_wrapper:
        for option in ("tryfirst", "trylast"):
            if impl.options.get(option):
                yield (
                    f"{here} is marked `{option}=True`, which has no meaning here: "
                    f"`{impl.hook}` has one owner, the plugin given last, and no order to be "
                    f"changed. Write `@hookimpl`."
                )


def _check_one_per_hook(found: list[Implementation]) -> Iterator[str]:
    by_hook: dict[str, list[Implementation]] = {}
    for impl in found:
        if impl.hook in SPECS and not impl.is_wrapper:
            by_hook.setdefault(impl.hook, []).append(impl)
    for hook, impls in by_hook.items():
        if len(impls) > 1 and specs.kind_of(SPECS[hook]) == "owned":
            names = " and ".join(f"`{impl.name}` ({impl.where})" for impl in impls)
            yield f"{names} both answer the hook `{hook}`, and only one function can. Drop one."


def _check_unmarked(plugin: Plugin) -> Iterator[str]:
    for name, value in vars(plugin.module).items():
        if name not in SPECS or not inspect.isfunction(value):
            continue
        if value.__module__ != plugin.module.__name__ or _mark(value, IMPL_MARK) is not None:
            continue
        file, line = location(value)
        if _mark(value, SPEC_MARK) is not None:
            wrong = "is marked with `@hookspec`, which declares hooks"
        else:
            wrong = "has the name of a hook but is not marked"
        yield (
            f"{display_path(file)}:{line}: `{name}` {wrong}, so it would never be called. Write "
            "`@hookimpl` above it (`from hooks import hookimpl`), or give it another name."
        )


def _check_not_functions(plugin: Plugin) -> Iterator[str]:
    for name, value in vars(plugin.module).items():
        if _mark(value, IMPL_MARK) is not None and not isinstance(value, FunctionType):
            yield (
                f"{display_path(plugin.file)}: `{name}` is marked with `@hookimpl` but is a "
                f"{type(value).__name__}, and only functions are called. Write `def {name}(...)`."
            )


def _check_methods(plugin: Plugin) -> Iterator[str]:
    for value in list(vars(plugin.module).values()):
        if not inspect.isclass(value) or value.__module__ != plugin.module.__name__:
            continue
        for name, member in vars(value).items():
            function = getattr(member, "__func__", member)  # staticmethod, classmethod
            if _mark(function, IMPL_MARK) is not None and inspect.isfunction(function):
                file, line = location(function)
                yield (
                    f"{display_path(file)}:{line}: `{value.__name__}.{name}` is a method, and "
                    "only module-level functions are called. Move it out of the class."
                )


def _mark(value: object, mark: str) -> dict[str, Any] | None:
    """The options that a marker has left on a value, if it was marked.

    Looked up statically: a module may hold objects that import things when touched.
    """
    options = inspect.getattr_static(value, mark, None)
    return options if isinstance(options, dict) else None


def _is_imported(value: object, module: ModuleType) -> bool:
    """True if a function is another module's, known there by its own name."""
    origin = getattr(value, "__module__", None)
    if origin == module.__name__ or not isinstance(value, FunctionType):
        return False
    return vars(sys.modules.get(str(origin), module)).get(value.__name__) is value


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
