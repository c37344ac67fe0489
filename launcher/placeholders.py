"""A configuration where not everything is given that a run needs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.training.errors import UserError

if TYPE_CHECKING:
    import argparse

    from launcher.config import OptionInfo, Resolved, Source
    from launcher.plugins import Plugins


def configure(options: argparse.Namespace, settings: Sequence[str]) -> tuple[Plugins, Resolved]:
    """The plugins, and the configuration with placeholders for what can be done without.

    Args:
        options: recipe, configuration files and plugins, as `launcher.choice.configure` takes them.
        settings: `name=value`.
    """
    from launcher.choice import choose
    from launcher.config import read_overrides, resolve
    from launcher.sections import SECTIONS

    overrides = read_overrides(list(settings))
    plugins, sources = choose(options)
    sections = plugins.sections(SECTIONS)
    given = [_filled(source) for source in [*sources, overrides]]
    # Of options of which a run needs one, such as several kinds of data sets, a starting file asks
    # for the usual one; where another is given, a placeholder in it would be one too many.
    required, asked = _placeholders(sections)
    errors = []
    for count in range(len(asked) + 1):
        for some in itertools.combinations(asked, count):
            try:
                return plugins, resolve(sections, [_source([*required, *some]), *given])
            except UserError as error:
                errors.append(error)
    raise min(errors, key=lambda error: str(error).count("\n"))


def _filled(source: Source) -> Source:
    """A file without the lines that a starting file leaves to be filled in."""
    from launcher.config import PLACEHOLDER

    values = {key: given for key, given in source.values.items() if given.text != PLACEHOLDER}
    return dataclasses.replace(source, values=values)


def _placeholders(sections: dict[str, type]) -> tuple[list[OptionInfo], list[OptionInfo]]:
    """Options of text that a run needs, and those that it may need."""
    from launcher.config import list_options

    infos = [info for info in list_options(sections) if info.takes.startswith("text")]
    required = [info for info in infos if info.is_required]
    return required, [info for info in infos if info.is_asked and not info.is_required]


def _source(infos: list[OptionInfo]) -> Source:
    from launcher.config import Source
    from launcher.config_values import Given
    from launcher.training.sizes_only import NOT_GIVEN

    given = Given(NOT_GIVEN, NOT_GIVEN, "not given")
    return Source("not given", {(info.section, info.name): given for info in infos})
