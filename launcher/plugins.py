"""Find, load, check and call plugins. Outside `hooks/` the only user of pluggy.

One plugin manager per run: the launcher's defaults, then the recipe, then the variants in the
order given. The last one that implements an owned hook owns it and is the only one called.

    plugins = load("flux_controlnet", ["my_variant.py"])
    models = plugins.hook.build_models(config=config, stage="train")

`launcher hooks --recipe NAME` shows which function answers which hook.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace, TracebackType
from typing import Any, Literal

import pluggy

from hooks import PROJECT_NAME, hookimpl, specs
from hooks.specs import Kind
from launcher.entry_points import (
    RecipeInfo,
    config_folder,
    distribution_of,
    list_recipes,
    recipe_entry,
    variant_entry,
)
from launcher.plugin_checks import (
    SPECS,
    Implementation,
    Plugin,
    display_path,
    implementations,
    mistakes,
)
from launcher.trace import Trace
from launcher.training.errors import UserError, refuse

__all__ = [
    "FunctionInfo",
    "HookInfo",
    "PluginImportError",
    "Plugins",
    "RecipeInfo",
    "defect",
    "describe_defaults",
    "list_recipes",
    "load",
    "locate",
    "recipe_configs",
]

Caller = Callable[..., Any]


class PluginImportError(Exception):
    """A plugin raised an exception while it was imported: `__cause__`, its traceback below."""


@dataclass(frozen=True)
class FunctionInfo:
    """A function of a plugin.

    Attributes:
        plugin: the plugin's name.
        function: the function's name.
        file: path of its source.
        line: line of its `def`.
    """

    plugin: str
    function: str
    file: str
    line: int

    def place(self, hook: str) -> str:
        """Plugin, file and line, and the function where it is not called like the hook."""
        place = f"{display_path(self.file)}:{self.line}"
        if not place.startswith(f"{self.plugin}:"):
            place = f"{self.plugin}  {place}"
        return place if self.function == hook else f"{place} ({self.function})"


@dataclass(frozen=True)
class HookInfo:
    """A hook and the functions behind it, as `launcher hooks` shows them.

    Attributes:
        name: the hook's name.
        kind: owned, merged or observed.
        arguments: what an implementation can take.
        summary: first line of the specification's documentation.
        owner: the one function that answers an owned hook; None if there is none, or if the
            hook is of another kind.
        implementations: the functions that are called, in the order of the calls.
        shadowed: the functions that are not called because a later plugin owns the hook.
        wrappers: the functions around the call, outermost first.
    """

    name: str
    kind: Kind
    arguments: tuple[str, ...]
    summary: str
    owner: FunctionInfo | None
    implementations: tuple[FunctionInfo, ...]
    shadowed: tuple[FunctionInfo, ...]
    wrappers: tuple[FunctionInfo, ...]


def load(recipe: str, variants: Sequence[str] = (), trace: Trace | None = None) -> Plugins:
    """Load and check the plugins of a run.

    Args:
        recipe: name of an installed recipe; no other recipe is imported.
        variants: in order; paths that end in .py, relative to the working directory, or names of
            installed variants. See `locate` for what a YAML file names.
        trace: is told of every call.

    Raises:
        UserError: a plugin does not exist, or something in it is wrong. All mistakes in all
            plugins are in one message.
        PluginImportError: a plugin failed while it was imported.
    """
    entry = recipe_entry(recipe)
    files = [locate(variant) for variant in variants]
    loaded = [
        _defaults(),
        _installed(entry, "recipe"),
        *(_file(f) if _is_path(f) else _installed(variant_entry(f), "variant") for f in files),
    ]
    _check_distinct(loaded)
    plugins = Plugins(loaded, trace)
    plugins.require_owners()
    return plugins


def defect(recipe: str) -> str | None:
    """What keeps an installed recipe from being loaded, in a line; None if nothing does.

    Imports the recipe's module, as a run would, and checks it.
    """
    try:
        load(recipe)
    except UserError as error:
        return " ".join(str(error).split())
    except PluginImportError as error:
        cause = error.__cause__
        return f"{type(cause).__name__}: {cause}"
    return None


def locate(variant: str, folder: Path | None = None) -> str:
    """A variant as `load` takes it: an absolute path for a file, else the name as it is.

    Args:
        variant: a path that ends in .py, or the name of an installed variant.
        folder: where a relative path is looked for first, for `plugins:` in a YAML file the
            folder of that file. The working directory comes after it.

    Raises:
        UserError: the file does not exist, or does not end in .py.
    """
    if not _is_path(variant):
        return variant
    places = [Path.cwd()] if folder is None else [folder, Path.cwd()]
    candidates = list(dict.fromkeys((p / Path(variant).expanduser()).resolve() for p in places))
    for candidate in candidates:
        if candidate.is_file():
            if candidate.suffix != ".py":
                raise UserError(
                    f"the variant `{variant}` does not end in .py. A variant is a Python file; "
                    "YAML files are given with `--config`."
                )
            return str(candidate)
    tried = " and ".join(str(candidate) for candidate in candidates)
    found = [c for c in candidates if c.exists()]
    raise UserError(
        f"the variant `{variant}` is a folder, not a file: {found[0]}."
        if found
        else f"there is no variant file `{variant}` (looked for {tried}). A relative path starts "
        "at the working directory, in a YAML file at the folder of that file first."
    )


def recipe_configs(recipe: str) -> dict[str, Path]:
    """The YAML files that a recipe or the launcher brings, by name: their paths below the folder
    `configs`, without suffix. The recipe is not imported, and its files come first.
    """
    folders = [config_folder(recipe_entry(recipe)), Path(__file__).parent / "configs"]
    found: dict[str, Path] = {}
    for folder in folders:
        if folder is not None and folder.is_dir():
            for path in sorted(folder.rglob("*.yaml")):
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def describe_defaults() -> list[HookInfo]:
    """Every hook with the launcher's own implementations: what a new recipe starts from."""
    return Plugins([_defaults()]).describe()


class Plugins:
    """The plugins of a run, checked.

    Attributes:
        hook: a function per hook in `hooks/specs.py`, called with keyword arguments. An owned
            hook calls its owner and whatever wraps it. `config_sections` and `check_config`
            return everyone's answers in one dict or list. Observed hooks tell everyone, the
            plugin registered last first.
    """

    hook: SimpleNamespace

    def __init__(self, plugins: Sequence[Plugin], trace: Trace | None = None) -> None:
        problems = [problem for plugin in plugins for problem in mistakes(plugin)]
        self._plugins = plugins
        self._found = [impl for plugin in plugins for impl in implementations(plugin)]
        problems += self._two_owners()
        refuse(problems)

        self._manager = pluggy.PluginManager(PROJECT_NAME)
        self._manager.add_hookspecs(specs)
        self._holders = {impl: _holder(impl.name, _called(impl, trace)) for impl in self._found}
        for number, holder in enumerate(self._holders.values()):
            self._manager.register(holder, name=f"{number} {holder.__name__}")
        callers = dict(self._callers())
        if trace is not None:
            unanswered = callers.keys() - {impl.hook for impl in self._found}
            callers.update((name, trace.unanswered(callers[name], name)) for name in unanswered)
        self.hook = SimpleNamespace(**callers)

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return self._recipe.name

    @property
    def variants(self) -> list[str]:
        """What `load` was given as variants: files by their absolute paths, others by name."""
        return [
            plugin.name if plugin.distribution else str(plugin.file)
            for plugin in self._plugins
            if plugin.role == "variant"
        ]

    @property
    def recipe_module(self) -> ModuleType:
        """The recipe's module."""
        return self._recipe.module

    @property
    def _recipe(self) -> Plugin:
        (recipe,) = (plugin for plugin in self._plugins if plugin.role == "recipe")
        return recipe

    def require_owners(self) -> None:
        """Raise UserError if an owned hook has nobody who answers it."""
        missing = [
            f"`{name}({', '.join(_arguments_of(name))})`"
            for name in SPECS
            if specs.kind_of(SPECS[name]) == "owned" and not self._answers(name)
        ]
        if missing:
            raise UserError(
                f"the recipe `{self.recipe}` is not complete: neither it, nor a variant, nor the "
                f"defaults answer {', '.join(missing)}. Define and mark with `@hookimpl` what is "
                f"missing in {display_path(self._recipe.file)}; hooks/specs.py says what each "
                "must return."
            )

    def sections(self, reserved: Mapping[str, type]) -> dict[str, type]:
        """The launcher's own configuration sections and those that plugins add.

        Args:
            reserved: the launcher's sections; a plugin must not bring one of the same name.

        Raises:
            UserError: two plugins bring one section, or a plugin brings a reserved one.
        """
        sections = dict(reserved)
        answers = self._merged("config_sections", {}, _is_sections, "a dict of dataclasses by name")
        for answer in answers:
            for name, section in answer.items():
                if sections.setdefault(name, section) is not section:
                    raise UserError(self._section_clash(name, name in reserved))
        return sections

    def leaves_to_launcher(self, name: str) -> bool:
        """Whether neither recipe nor variants answer an owned hook, but the launcher's default."""
        return [impl.plugin for impl in self._answers(name)] == [self._plugins[0]]

    def answered_by_variants(self) -> dict[str, list[str]]:
        """The hooks that each variant answers or wraps, in call order, by the variant's name."""
        return {
            plugin.name: [
                name
                for name in SPECS
                if any(impl.hook == name and impl.plugin is plugin for impl in self._found)
            ]
            for plugin in self._plugins
            if plugin.role == "variant"
        }

    def owner_of(self, name: str) -> str:
        """The name of the plugin that answers an owned hook."""
        return self._answers(name)[-1].plugin.name

    def describe(self) -> list[HookInfo]:
        """Every hook in call order."""
        return [self._describe(name) for name in SPECS]

    def files(self) -> list[dict[str, str | None]]:
        """The source of every plugin, for the run's provenance.

        Returns:
            `name`, `file`, `sha256`, `distribution`, `version` of each file. An installed plugin
            has all Python and YAML files of its package, a variant file only itself.
        """
        return [
            {
                "name": plugin.name,
                "file": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "distribution": plugin.distribution,
                "version": plugin.version,
            }
            for plugin in self._plugins
            for path in _source_files(plugin)
        ]

    def _answers(self, name: str) -> list[Implementation]:
        """The implementations of a hook that are not wrappers, in order of registration."""
        return [impl for impl in self._found if impl.hook == name and not impl.is_wrapper]

    def _wrappers(self, name: str) -> list[Implementation]:
        """The wrappers of a hook, outermost first."""
        wrappers = [impl for impl in self._found if impl.hook == name and impl.is_wrapper]
        return self._in_call_order(name, wrappers)

    def _in_call_order(self, name: str, impls: list[Implementation]) -> list[Implementation]:
        """pluggy's order: last registered first, but for `tryfirst` and `trylast`."""
        registered = [impl.plugin for impl in getattr(self._manager.hook, name).get_hookimpls()]
        return sorted(impls, key=lambda impl: -registered.index(self._holders[impl]))

    def _two_owners(self) -> Iterator[str]:
        for name, spec in SPECS.items():
            rivals = [impl for impl in self._answers(name) if impl.plugin.role == "variant"]
            if specs.kind_of(spec) == "owned" and len({impl.plugin for impl in rivals}) > 1:
                yield (
                    f"{len(rivals)} variants answer `{name}`, and only one plugin can: "
                    f"{' and '.join(impl.where for impl in rivals)}. Leave one of them out, or "
                    "make all but one a wrapper (`@hookimpl(wrapper=True)`)."
                )

    def _callers(self) -> Iterator[tuple[str, Caller]]:
        """What `hook` holds. Built once: nothing is looked up during training."""
        for name, spec in SPECS.items():
            kind = specs.kind_of(spec)
            if kind == "observed":
                yield name, getattr(self._manager.hook, name)
            elif kind == "owned" and self._answers(name):
                yield name, self._owned(name)
        yield "config_sections", lambda: self.sections({})
        yield "check_config", self._check_config

    def _owned(self, name: str) -> Caller:
        *shadowed, owner = self._answers(name)
        wrappers = self._wrappers(name)
        forgot = _forgot(owner)
        if wrappers:
            # Innermost, so that below it None is the owner's and above it a wrapper's.
            self._manager.register(_guard(name, forgot), name=f"guard of {name}")
            places = " or ".join(f"`{impl.name}` ({impl.where})" for impl in wrappers)
            forgot = (
                f"the answer of the hook `{name}` was lost on the way: the wrapper {places} "
                "returned None. A wrapper must end with `return result`, the value of its `yield`."
            )
        holders = [self._holders[impl] for impl in shadowed]
        call = self._manager.subset_hook_caller(name, remove_plugins=holders)

        def answer(**arguments: Any) -> Any:
            result = call(**arguments)
            if result is None:
                raise UserError(forgot)
            return result

        return answer

    def _check_config(self, **arguments: Any) -> list[str]:
        answers = self._merged("check_config", arguments, _is_problems, "a list of strings")
        return [problem for answer in answers for problem in answer]

    def _merged(
        self, name: str, arguments: dict[str, Any], is_right: Callable[[Any], bool], expected: str
    ) -> list[Any]:
        """Everyone's answers to a merged hook, in order of registration."""
        results = getattr(self._manager.hook, name)(**arguments)
        wrong = not _is_list(results) or not all(map(is_right, results))
        if wrong or len(results) < len(self._answers(name)):  # pluggy leaves out None
            culprit = self._who(name, arguments, lambda answer: not is_right(answer))
            if culprit is not None:
                impl, answer = culprit
                if answer is None:
                    raise UserError(_forgot(impl))
                raise UserError(
                    f"{impl.where}: `{impl.name}` of `{impl.plugin.name}` must return {expected}, "
                    f"and returned {_short(answer)}."
                )
            if wrong:
                places = " or ".join(f"`{w.name}` ({w.where})" for w in self._wrappers(name))
                raise UserError(
                    f"the answers to the hook `{name}` were spoilt by the wrapper {places}: around "
                    f"this hook, the value of `yield` is a list with {expected} per plugin, and so "
                    "must be what the wrapper returns."
                )
        return list(reversed(results))

    def _who(
        self, name: str, arguments: dict[str, Any], is_wanted: Callable[[Any], bool]
    ) -> tuple[Implementation, Any] | None:
        """Whose answer it is. Asks each by itself: only on the way to an error message."""
        for impl in self._answers(name):
            answer = impl.function(**{key: arguments[key] for key in impl.arguments})
            if is_wanted(answer):
                return impl, answer
        return None

    def _section_clash(self, name: str, is_reserved: bool) -> str:
        rivals = ["the launcher itself"] if is_reserved else []
        for impl in self._answers("config_sections"):
            if name in impl.function():
                rivals.append(f"`{impl.plugin.name}` ({impl.where})")
        return (
            f"the configuration section `{name}` is defined twice, by {' and by '.join(rivals)}. "
            "Give it another name in the plugin's `config_sections`."
        )

    def _describe(self, name: str) -> HookInfo:
        kind = specs.kind_of(SPECS[name])
        answers = self._answers(name)
        called, shadowed = answers, []
        if kind == "owned":
            called, shadowed = answers[-1:], answers[:-1]
        elif kind == "observed":
            called = self._in_call_order(name, answers)
        return HookInfo(
            name=name,
            kind=kind,
            arguments=tuple(_arguments_of(name)),
            summary=(inspect.getdoc(SPECS[name]) or "").partition("\n")[0],
            owner=_info(called[0]) if kind == "owned" and called else None,
            implementations=tuple(map(_info, called)),
            shadowed=tuple(map(_info, shadowed)),
            wrappers=tuple(map(_info, self._wrappers(name))),
        )


def _defaults() -> Plugin:
    from launcher import defaults

    return Plugin("launcher.defaults", "defaults", defaults)


def _installed(entry: EntryPoint, role: Literal["recipe", "variant"]) -> Plugin:
    distribution, version = distribution_of(entry)
    with _importing(f"the {role} `{entry.name}` ({entry.value}, of {distribution} {version})"):
        module = importlib.import_module(entry.module)
    return Plugin(entry.name, role, module, distribution, version)


def _file(path: str) -> Plugin:
    """Import a variant file.

    It gets a module name of its own, so two files of one name do not collide, and stands in
    `sys.modules` and in a file, because graph mode reads the source of what it compiles. Its
    folder goes to the end of `sys.path`: a variant can import what lies next to it, and nothing
    that lies there hides an installed package.
    """
    code = _compile(path)
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    name = f"launcher_variant_{re.sub(r'[^0-9A-Za-z_]', '_', Path(path).stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "the path ends in .py"
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        with _importing(f"the variant {display_path(path)}"):
            exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return Plugin(display_path(path), "variant", module)


def _compile(path: str) -> CodeType:
    try:
        return compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise UserError(
            f"the variant {display_path(path)} cannot be read: {error.strerror}."
        ) from None
    except SyntaxError as error:
        where = f"{display_path(path)}:{error.lineno}" if error.lineno else display_path(path)
        text = (error.text or "").rstrip("\n")
        shown = f"\n    {text.strip()}" if text.strip() else ""
        raise UserError(f"{where}: this is not valid Python ({error.msg}).{shown}") from None
    except ValueError as error:  # null bytes
        raise UserError(f"{display_path(path)}: this is not valid Python ({error}).") from None


@contextmanager
def _importing(what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends itself is no plugin
        error.__traceback__ = _below_import(error.__traceback__)
        raise PluginImportError(f"{what} failed while it was imported") from error


def _below_import(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that lies in the plugin."""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen importlib"):
            break
        traceback = traceback.tb_next
    return traceback


def _check_distinct(plugins: Sequence[Plugin]) -> None:
    by_file: dict[str, Plugin] = {}
    for plugin in plugins:
        first = by_file.setdefault(os.path.realpath(plugin.file), plugin)
        if first is not plugin:
            raise UserError(
                f"{display_path(plugin.file)} is given twice, as the {first.role} `{first.name}` "
                f"and as the {plugin.role} `{plugin.name}`. Leave one out, on the command line or "
                "under `plugins:` in a YAML file."
            )


def _is_path(variant: str) -> bool:
    return variant.endswith(".py") or os.sep in variant


def _called(impl: Implementation, trace: Trace | None) -> Caller:
    """The function that is called for an implementation: without a trace, its own."""
    if trace is None:
        return impl.function
    place = _info(impl).place(impl.hook)
    return trace.around(impl.function, impl.hook, place, impl.is_wrapper)


def _holder(name: str, function: Caller) -> ModuleType:
    """What pluggy registers: one function, so that each can be left out of a call by itself."""
    holder = ModuleType(name)
    setattr(holder, name, function)
    return holder


def _guard(name: str, message: str) -> ModuleType:
    """A wrapper that raises a UserError if the owner of a hook returned None."""

    @hookimpl(wrapper=True, trylast=True, specname=name)
    def guard() -> Generator[None, Any, Any]:
        result = yield
        if result is None:
            raise UserError(message)
        return result

    return _holder("guard", guard)


def _forgot(impl: Implementation) -> str:
    value = (inspect.signature(SPECS[impl.hook]).return_annotation or "").lower()
    example = next((a for a in impl.arguments if a == value), "...")
    return (
        f"{impl.where}: `{impl.name}` of `{impl.plugin.name}` returned None: did you forget "
        f"`return {example}`? The hook `{impl.hook}` must return a value."
    )


def _arguments_of(name: str) -> list[str]:
    return list(inspect.signature(SPECS[name]).parameters)


def _info(impl: Implementation) -> FunctionInfo:
    return FunctionInfo(impl.plugin.name, impl.name, impl.file, impl.line)


def _source_files(plugin: Plugin) -> list[Path]:
    file = Path(plugin.file)
    if plugin.role == "defaults" or plugin.distribution is None or not plugin.module.__package__:
        return [file]
    return sorted(p for p in file.parent.rglob("*") if p.suffix in (".py", ".yaml") and p.is_file())


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_sections(answer: Any) -> bool:
    return isinstance(answer, Mapping) and all(
        isinstance(name, str) and isinstance(section, type) and is_dataclass(section)
        for name, section in answer.items()
    )


def _is_problems(answer: Any) -> bool:
    return _is_list(answer) and all(isinstance(problem, str) for problem in answer)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
