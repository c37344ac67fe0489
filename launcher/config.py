"""From YAML files and `name=value` arguments to the run's configuration.

Sections are dataclasses (see `launcher.training.options`). A value may be set by, in rising order
of precedence: the option's own default, the recipe's YAML file, each `--config` file, the command
line. All mistakes are collected and reported together.

    launcher --recipe flux_controlnet --config my_run.yaml train.learning_rate=1e-5
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, get_type_hints

from hooks.types import Config
from launcher.config_names import Option, find, options_of, top_level_problems
from launcher.config_sources import Source, read_overrides, read_yaml
from launcher.config_values import Given, convert, describe, describe_bounds, shown
from launcher.training.errors import refuse

__all__ = [
    "PLACEHOLDER",
    "OptionInfo",
    "Resolved",
    "Source",
    "as_yaml",
    "list_options",
    "options_table",
    "read_overrides",
    "read_yaml",
    "resolve",
    "to_yaml",
]

#: What stands in a starting file where the user has to write a value.
PLACEHOLDER = "???"


@dataclass(frozen=True)
class Resolved:
    """The configuration, and where each value comes from (`default`, `my_run.yaml:12`, ...)."""

    config: Config
    origins: Mapping[str, str] = field(default_factory=dict)


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
    for section, section_type in sections.items():
        missing = [
            name
            for name, option in options_of(section_type).items()
            if _is_required(option) and name not in values[section]
        ]
        problems += [
            _missing(section, options_of(section_type)[name])
            for name in missing
            if (section, name) not in doubtful
        ]
        if not missing and section not in {section for section, _ in doubtful}:
            built[section] = section_type(**values[section])
            problems += _own_problems(built[section])
    refuse(list(dict.fromkeys(map(_sentence, problems))))
    return Resolved(Config(built), origins)


def _collect(
    sections: Mapping[str, type], sources: Iterable[Source]
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str], set[Option]]:
    """What the sources set: values by section, origins of all options, problems, and the options
    that the problems are, or may be, about."""
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    origins = {f"{s}.{name}": "default" for s in sections for name in options_of(sections[s])}
    problems: list[str] = []
    doubtful: set[Option] = set()
    unfilled: dict[Option, str] = {}  # later sources may fill them
    for source in sources:
        problems += source.problems
        problems += top_level_problems(source, sections)
        for (written, name), given in source.values.items():
            meant, problem = find(written, name, sections, given)
            if problem is not None:
                doubtful.update(meant)
                if written in sections or written not in source.sections:  # else reported above
                    problems.append(problem)
                continue
            section, name = meant[0]
            option = options_of(sections[section])[name]
            unfilled.pop((section, name), None)
            if given.text == PLACEHOLDER:
                values[section].pop(name, None)
                unfilled[section, name] = _unfilled(given, section, option)
                continue
            try:
                annotation = _annotations(sections[section])[name]
                values[section][name] = convert(given, annotation, _bounds(option))
            except ValueError as error:
                doubtful.add((section, name))
                name = f"{section}.{name}"
                problems.append(f"{given.origin}: {name} is {shown(given)}, but {error}")
            else:
                origins[f"{section}.{name}"] = given.origin
    problems += unfilled.values()
    doubtful.update(unfilled)
    return values, origins, problems, doubtful


def _unfilled(given: Given, section: str, option: Any) -> str:
    name = f"{section}.{option.name}"
    leave = "" if _is_required(option) else ", or delete the line"
    return (
        f"{given.origin}: {name} is still {PLACEHOLDER}; write in its place: "
        f"{option.metadata.get('help', 'a value')}. Or give {name}=... on the command line{leave}."
    )


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
        resume: whether a continued run may have another value, see `option`.
    """

    section: str
    name: str
    takes: str
    help: str
    is_required: bool
    is_asked: bool
    default: Any
    resume: str


def list_options(sections: Mapping[str, type], sources: Iterable[Source] = ()) -> list[OptionInfo]:
    """Every option of every section.

    Args:
        sections: dataclasses by section name.
        sources: what changes the defaults, such as a recipe's YAML file.

    Raises:
        UserError: lists every mistake found in the sources.
    """
    values, _, problems, _ = _collect(sections, sources)
    refuse(list(map(_sentence, problems)))
    return [
        _option_info(name, section, option, values[name])
        for name, section in sections.items()
        for option in options_of(section).values()
    ]


def _option_info(name: str, section: type, option: Any, values: Mapping[str, Any]) -> OptionInfo:
    bounds = describe_bounds(_bounds(option))
    takes = describe(_annotations(section)[option.name]) + (f", {bounds}" if bounds else "")
    has_default = option.name in values or not _is_required(option)
    return OptionInfo(
        section=name,
        name=option.name,
        takes=takes,
        help=option.metadata.get("help", ""),
        is_required=not has_default,
        is_asked=not has_default
        or (option.name in getattr(section, "asks", ()) and option.name not in values),
        default=values.get(option.name, _default(option)),
        resume=option.metadata.get("resume", "fixed"),
    )


def options_table(sections: Mapping[str, type]) -> str:
    """Every option as a row of a Markdown table."""
    rows = ["| option | takes | default | what it does | resume |", "|" + " --- |" * 5]
    for info in list_options(sections):
        default = "(required)" if info.is_required else f"`{as_yaml(info.default)}`"
        help_text = info.help.replace("|", "\\|")
        rows.append(
            f"| `{info.section}.{info.name}` | {info.takes} | {default} | {help_text} | "
            f"{info.resume} |"
        )
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
