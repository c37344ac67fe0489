"""Which option a name means, and which one was probably meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from launcher.config_sources import Source
from launcher.config_values import Given, near, shown

#: Dataclasses by section name.
Sections = Mapping[str, type]

#: (section, name) of an option.
Option = tuple[str, str]


@lru_cache
def options_of(section: type) -> dict[str, Any]:
    """The dataclass fields of a section, by name."""
    return {option.name: option for option in dataclasses.fields(section)}


def find(
    section: str | None, name: str, sections: Sections, given: Given
) -> tuple[list[Option], str | None]:
    """The option that a value is for.

    Returns:
        The options that are or may be meant, and the problem; without one it is one option.
    """
    homes = _homes(name, sections)
    candidates = [(home, name) for home in homes]
    if section is None:
        if len(homes) == 1:
            return candidates, None
        if homes:
            where = " or ".join(f"{home}.{name}" for home in homes)
            problem = f"{name} is an option of several sections; write {where}."
            return candidates, f"{given.origin}: {problem}"
        candidates, hint = _suggest(name, sections)
        return candidates, f"{given.origin}: there is no option {name}; {hint}"
    if section in homes:
        return [(section, name)], None
    if section not in sections:
        meant = near(section, homes)
        hint = _suggest_section(section, [name], sections)
        problem = f"there is no section {section} (for {section}.{name}); {hint}"
        return [(meant, name)] if meant else candidates, f"{given.origin}: {problem}"
    if homes:
        hint = f"did you mean {' or '.join(f'{home}.{name}' for home in homes)}?"
    else:
        candidates, hint = _suggest(name, sections, section)
    return candidates, f"{given.origin}: the section {section} has no option {name}; {hint}"


def top_level_problems(source: Source, sections: Sections) -> Iterator[str]:
    """What is wrong with the top-level keys of a file."""
    for key, given in source.sections.items():
        section, _, name = key.rpartition(".")
        homes = [home for home in _homes(name, sections) if section in ("", home)]
        if key in sections:
            if given.value is not None and not isinstance(given.value, dict):
                hint = "; a space belongs after a colon" if ":" in (given.text or "") else ""
                yield (
                    f"{given.origin}: `{key}` is a section, so its options stand indented below "
                    f"`{key}:`, each on its own line; found {shown(given)} instead{hint}."
                )
        elif homes:
            where = " or ".join(f"`{home}:`" for home in homes)
            yield (
                f"{given.origin}: `{key}` stands outside of its section; write `{name}: ...` "
                f"indented below {where}."
            )
        else:
            names = [name for section, name in source.values if section == key]
            hint = _suggest_section(key, names, sections)
            yield f"{given.origin}: there is no section {key}; {hint}"


def _homes(name: str, sections: Sections) -> list[str]:
    return [section for section in sections if name in options_of(sections[section])]


def _suggest_section(section: str, names: Iterable[str], sections: Sections) -> str:
    """A hint from the section's name, else from the options that were set in it."""
    meant = near(section, sections)
    if meant is not None:
        return f"did you mean {meant}?"
    for name in names:
        homes = _homes(name, sections)
        if len(homes) == 1:
            return f"did you mean {homes[0]}.{name}?"
    return f"sections are {', '.join(sections)}."


def _suggest(name: str, sections: Sections, section: str | None = None) -> tuple[list[Option], str]:
    """The option that was probably meant, of this section, else of any; and that as a hint."""
    meant = near(name, options_of(sections[section])) if section is not None else None
    if section is not None and meant is not None:
        return [(section, meant)], f"did you mean {section}.{meant}?"
    if section is None and name in sections:
        return [], f"{name} is a section, with {', '.join(options_of(sections[name]))}."
    home = {option: s for s in sections for option in options_of(sections[s])}
    meant = near(name, home)
    if meant is not None:
        return [(home[meant], meant)], f"did you mean {home[meant]}.{meant}?"
    if section is not None:
        return [], f"it has {', '.join(options_of(sections[section]))}."
    return [], "`launcher cp RECIPE -` lists all options of a recipe."
