"""From YAML files and `name=value` arguments to the run's configuration.

Sections are dataclasses (see `launcher.training.options`). A value may be set by, in rising order
of precedence: the option's own default, the recipe's YAML file, each `--config` file, the command
line. All mistakes are collected and reported together.

    launcher --recipe flux_controlnet --config my_run.yaml train.learning_rate=1e-5
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from hooks.types import Config
from launcher.config_values import (
    COMMAND_LINE,
    Given,
    convert,
    describe,
    describe_bounds,
    near,
)
from launcher.training.errors import UserError, refuse

#: What stands in a starting file where the user has to write a value.
PLACEHOLDER = "???"

#: A value for (section, option); the section is None where the command line gave the leaf alone.
Key = tuple["str | None", str]


@dataclass(frozen=True)
class Source:
    """What one file, or the command line, sets.

    Attributes:
        label: the file as the user named it, or `command line`.
        values: what is set, in the order written.
        recipe: the top-level key `recipe` of a file.
        plugins: the top-level key `plugins` of a file.
    """

    label: str
    values: Mapping[Key, Given]
    recipe: str | None = None
    plugins: Sequence[str] = ()


@dataclass(frozen=True)
class Resolved:
    """The configuration, and where each value comes from (`default`, `my_run.yaml:12`, ...)."""

    config: Config
    origins: Mapping[str, str] = field(default_factory=dict)


# -------------------------------------------------------------------------------------------
# Reading
# -------------------------------------------------------------------------------------------


def read_yaml(path: Path) -> Source:
    """Read a YAML file of sections.

    Raises:
        UserError: there is no such file, it is no YAML, or not a mapping of sections; every
            mistake in its form is listed.
    """
    import yaml

    text = _read_text(path)
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        reader = _Reader(str(path), loader)
        source = reader.read(root)
    except yaml.YAMLError as error:
        raise UserError(_syntax_error(path, error, text)) from None
    finally:
        loader.dispose()
    refuse(reader.problems)
    return source


def read_overrides(arguments: Sequence[str]) -> Source:
    """Read `section.option=value` arguments, or `option=value` where only one section has it.

    The first `=` separates; what follows may hold any character.

    Raises:
        UserError: an argument has no name before the `=`, or sets what another has set.
    """
    import yaml

    values: dict[Key, Given] = {}
    problems = []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        section, dot, option = name.rpartition(".")
        if not equals or not option or (dot and not section):
            problems.append(f"`{argument}` is not of the form section.option=value.")
            continue
        key = (section if dot else None, option)
        if key in values:
            problems.append(
                f"{name} is given twice on the command line: `{name}={values[key].text}` and "
                f"`{argument}`; leave one of them out."
            )
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            given = _Reader(COMMAND_LINE, loader).given(node)
        except yaml.YAMLError:  # text that is no YAML, such as `a: b: c`, can only be a string
            given = Given(text, text, COMMAND_LINE)
        # As typed: what YAML takes for a comment or a quote belongs to a string all the same.
        values[key] = dataclasses.replace(given, text=text) if given.items is None else given
    refuse(problems)
    return Source(COMMAND_LINE, values)


class _Reader:
    """Walks the nodes of a YAML document, which know their lines and their text."""

    def __init__(self, label: str, loader: Any) -> None:
        self.label = label
        self.loader = loader
        self.problems: list[str] = []

    def read(self, root: Any) -> Source:
        values: dict[Key, Given] = {}
        recipe: str | None = None
        plugins: Sequence[str] = ()
        if root is not None and not self._is_null(root) and not self._is_mapping(root):
            self.problems.append(
                f"{self.label} holds no sections; write `train:` and, indented below it, "
                "`learning_rate: 1e-5`."
            )
            return Source(self.label, {})
        for name, node in self._pairs(root):
            if name == "recipe":
                recipe = self._recipe(node)
            elif name == "plugins":
                plugins = self._plugins(node)
            elif self._is_mapping(node):
                for option, value in self._pairs(node, f"{name}."):
                    values[name, option] = self.given(value)
            elif not self._is_null(node):  # a section with everything commented out is null
                self.problems.append(
                    f"{self.origin(node)}: `{name}` is a section, so options stand indented "
                    f"below `{name}:`, each on its own line; found {self._shown(node)} instead."
                )
        return Source(self.label, values, recipe, plugins)

    def given(self, node: Any) -> Given:
        """A value, with its text."""
        if node is None:
            return Given(None, "", self.label)
        items = None
        if node.id == "sequence":
            items = tuple(self.given(item) for item in node.value)
        text = node.value if node.id == "scalar" else None
        return Given(self.loader.construct_object(node, deep=True), text, self.origin(node), items)

    def origin(self, node: Any) -> str:
        if self.label == COMMAND_LINE:
            return COMMAND_LINE
        return f"{self.label}:{node.start_mark.line + 1}"

    def _pairs(self, mapping: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        if not self._is_mapping(mapping):
            return
        self.loader.flatten_mapping(mapping)  # `<<: *defaults`
        first: dict[str, Any] = {}
        for key, value in mapping.value:
            name = str(key.value)
            if name in first:
                self.problems.append(
                    f"{self.origin(key)}: `{prefix}{name}` is set twice, first in line "
                    f"{first[name].start_mark.line + 1}; keep one of them."
                )
            first[name] = key
            yield name, value

    def _recipe(self, node: Any) -> str | None:
        value = self.given(node).value
        if value is not None and not isinstance(value, str):
            self.problems.append(f"{self.origin(node)}: `recipe` takes one name, not {value!r}.")
            return None
        return value

    def _plugins(self, node: Any) -> Sequence[str]:
        value = self.given(node).value
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problems.append(
                f"{self.origin(node)}: `plugins` takes a list of files or names, such as "
                f"`plugins: [my_variant.py]`, not {value!r}."
            )
            return ()
        return value

    def _shown(self, node: Any) -> str:
        return repr(self.loader.construct_object(node, deep=True))

    @staticmethod
    def _is_mapping(node: Any) -> bool:
        return node is not None and node.id == "mapping"

    @staticmethod
    def _is_null(node: Any) -> bool:
        return bool(node.tag == "tag:yaml.org,2002:null")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = path.parent
        names = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        yaml_names = [name for name in names if name.endswith((".yaml", ".yml"))]
        meant = difflib.get_close_matches(path.name, yaml_names, n=1)
        if meant:
            hint = f"did you mean {folder / meant[0]}?"
        elif not folder.is_dir():
            hint = f"there is no folder {folder}."
        else:
            listed = ", ".join(sorted(yaml_names)) or "no YAML file"
            hint = f"{folder.resolve()} holds {listed}."
        raise UserError(f"There is no configuration file {path}; {hint}") from None
    except IsADirectoryError:
        raise UserError(f"--config {path} is a folder; give a YAML file.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8, or give a YAML file."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def _syntax_error(path: Path, error: Any, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return f"{path} is not valid YAML: {problem}."
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else ""
    hint = " Indent with spaces, not tabs." if "\\t" in problem else ""
    shown = f", at `{line}`" if line else ", at the end of the file"
    return f"{path}:{mark.line + 1}:{mark.column + 1} is not valid YAML{shown}: {problem}.{hint}"


# -------------------------------------------------------------------------------------------
# Resolving
# -------------------------------------------------------------------------------------------


def resolve(sections: Mapping[str, type], sources: Iterable[Source]) -> Resolved:
    """Build the configuration.

    Args:
        sections: dataclasses by section name.
        sources: in rising order of precedence.

    Raises:
        UserError: lists every mistake found.
    """
    values, origins, problems, doubtful = _collect(sections, sources)
    built: dict[str, Any] = {}
    for name, section_type in sections.items():
        missing = [
            option
            for option in _options(section_type)
            if _is_required(option) and option.name not in values[name]
        ]
        if name not in doubtful:
            problems += [_missing(name, option) for option in missing]
        if not missing and name not in doubtful:
            built[name] = section_type(**values[name])
            problems += map(_sentence, _own_problems(built[name]))
    refuse(problems)
    return Resolved(Config(built), origins)


def _collect(
    sections: Mapping[str, type], sources: Iterable[Source]
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str], set[str | None]]:
    """What the sources set: values by section, origins of all options, problems, and the sections
    whose values are not all known."""
    problems: list[str] = []
    values: dict[str, dict[str, Any]] = {name: {} for name in sections}
    origins = {
        f"{name}.{option.name}": "default"
        for name in sections
        for option in _options(sections[name])
    }
    doubtful: set[str | None] = set()
    unfilled: dict[tuple[str, str], str] = {}  # later sources may fill them
    for source in sources:
        for (section, name), given in source.values.items():
            section, problem = _find(section, name, sections, given)
            if problem is None:
                assert section is not None
                option = _options_by_name(sections[section])[name]
                unfilled.pop((section, name), None)
                if given.text == PLACEHOLDER:
                    values[section].pop(name, None)
                    unfilled[section, name] = _unfilled(given, section, option)
                    continue
                try:
                    annotation = _annotations(sections[section])[name]
                    values[section][name] = convert(given, annotation, _bounds(option))
                except ValueError as error:
                    problem = _sentence(
                        f"{given.origin}: {section}.{name} is {_shown(given)}, but {error}"
                    )
                else:
                    origins[f"{section}.{name}"] = given.origin
            if problem is not None:
                problems.append(problem)
                doubtful.add(section)
    problems += unfilled.values()
    doubtful.update(section for section, _ in unfilled)
    return values, origins, problems, doubtful


def _unfilled(given: Given, section: str, option: Any) -> str:
    name = f"{section}.{option.name}"
    leave = "" if _is_required(option) else ", or delete the line"
    return (
        f"{given.origin}: {name} is still {PLACEHOLDER}; write in its place: "
        f"{option.metadata.get('help', 'a value')}. Or give {name}=... on the command line{leave}."
    )


def _find(
    section: str | None, name: str, sections: Mapping[str, type], given: Given
) -> tuple[str | None, str | None]:
    """(the section that has the option, None), or (the section as far as known, the problem)."""
    having = [s for s in sections if name in _options_by_name(sections[s])]
    if section is None:
        if len(having) == 1:
            return having[0], None
        if having:
            where = " or ".join(f"{s}.{name}" for s in having)
            return None, f"{given.origin}: {name} is an option of several sections; write {where}."
        return None, f"{given.origin}: there is no option {name}; {_suggest(name, sections)}"
    if section in having:
        return section, None
    if section not in sections:
        meant = near(section, sections)
        if meant is None and len(having) == 1:
            hint = f"did you mean {having[0]}.{name}?"
        else:
            hint = f"did you mean {meant}?" if meant else f"sections are {', '.join(sections)}."
        return None, f"{given.origin}: there is no section {section} (for {section}.{name}); {hint}"
    if having:
        return section, (
            f"{given.origin}: the section {section} has no option {name}; "
            f"did you mean {' or '.join(f'{s}.{name}' for s in having)}?"
        )
    return section, (
        f"{given.origin}: the section {section} has no option {name}; "
        f"{_suggest(name, sections, section)}"
    )


def _suggest(name: str, sections: Mapping[str, type], section: str | None = None) -> str:
    """The option that was probably meant: of this section, else of any."""
    if section is not None:
        meant = near(name, _options_by_name(sections[section]))
        if meant is not None:
            return f"did you mean {section}.{meant}?"
    known = {option: s for s in sections for option in _options_by_name(sections[s])}
    meant = near(name, known)
    if meant is not None:
        return f"did you mean {known[meant]}.{meant}?"
    if section is not None:
        return f"it has {', '.join(_options_by_name(sections[section]))}."
    return "`launcher --help` says how options are given, and the README lists them."


def _missing(section: str, option: Any) -> str:
    name = f"{section}.{option.name}"
    return (
        f"{name} is missing ({option.metadata.get('help', 'no help')}). Set it in a --config file, "
        f"as `{option.name}: ...` below `{section}:`, or with {name}=... on the command line."
    )


def _own_problems(section: Any) -> Iterable[str]:
    problems = getattr(section, "problems", None)
    return problems() if problems is not None else ()


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _shown(given: Given) -> str:
    return repr(given.text if given.text is not None else given.value)


@lru_cache
def _options(section: type) -> tuple[Any, ...]:
    return dataclasses.fields(section)


def _options_by_name(section: type) -> dict[str, Any]:
    return {option.name: option for option in _options(section)}


@lru_cache
def _annotations(section: type) -> dict[str, Any]:
    return get_type_hints(section)


def _bounds(option: Any) -> Mapping[str, float]:
    bounds: Mapping[str, float] = option.metadata.get("bounds", {})
    return bounds


def _is_required(option: Any) -> bool:
    return option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING


# -------------------------------------------------------------------------------------------
# Writing
# -------------------------------------------------------------------------------------------


def to_yaml(chosen: Mapping[str, Any], config: Config) -> str:
    """A run as YAML that `read_yaml` reads back to an equal one.

    Args:
        chosen: the top-level keys: `recipe`, `plugins`.
        config: every option of every section is written.
    """
    import yaml

    sections = {name: dataclasses.asdict(config[name]) for name in config}
    return yaml.safe_dump(
        _plain({**chosen, **sections}), sort_keys=False, allow_unicode=True, width=float("inf")
    )


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class OptionInfo:
    """An option as documentation shows it.

    Attributes:
        section, name: `train` and `seed` for `train.seed`.
        takes: type, choices and bounds, in words.
        help: what it does.
        is_required: it has no default.
        is_asked: a starting file asks for it.
        default: its default; None if it is required.
    """

    section: str
    name: str
    takes: str
    help: str
    is_required: bool
    is_asked: bool
    default: Any


def list_options(sections: Mapping[str, type], sources: Iterable[Source] = ()) -> list[OptionInfo]:
    """Every option of every section.

    Args:
        sections: dataclasses by section name.
        sources: what changes the defaults, such as a recipe's YAML file.

    Raises:
        UserError: lists every mistake found in the sources.
    """
    values, _, problems, _ = _collect(sections, sources)
    refuse(problems)
    return [
        _option_info(name, option, values[name], _annotations(section)[option.name])
        for name, section in sections.items()
        for option in _options(section)
    ]


def _option_info(section: str, option: Any, values: Mapping[str, Any], kind: Any) -> OptionInfo:
    bounds = describe_bounds(_bounds(option))
    takes = describe(kind) + (f", {bounds}" if bounds else "")
    has_default = option.name in values or not _is_required(option)
    return OptionInfo(
        section=section,
        name=option.name,
        takes=takes,
        help=option.metadata.get("help", ""),
        is_required=not has_default,
        is_asked=not has_default or option.metadata.get("ask", False),
        default=values.get(option.name, _default(option)),
    )


def options_table(sections: Mapping[str, type]) -> str:
    """Every option as a row of a Markdown table."""
    rows = ["| option | takes | default | what it does |", "| --- | --- | --- | --- |"]
    for info in list_options(sections):
        default = "(required)" if info.is_required else f"`{as_yaml(info.default)}`"
        help_text = info.help.replace("|", "\\|")
        rows.append(f"| `{info.section}.{info.name}` | {info.takes} | {default} | {help_text} |")
    return "\n".join(rows) + "\n"


def as_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    import yaml

    plain = _plain(value)
    dumped: str = yaml.safe_dump(
        plain, default_flow_style=True, allow_unicode=True, width=float("inf")
    )
    return dumped.split("\n")[0]


def _default(option: Any) -> Any:
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return None if option.default is dataclasses.MISSING else option.default
