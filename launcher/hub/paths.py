"""Which options of a run name files and folders of its machine.

An option says of itself that it takes a path (`launcher.training.options.option`). One that takes
names on the Hugging Face Hub as well, as `acme/flux` may be one, is settled when the run starts:
later, or elsewhere, nobody could tell.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hooks.types import Config
from launcher.training.private import hub_name


def local_options(config: Config) -> list[str]:
    """The options that name something on this machine, as seen from the working directory; to be
    noted when a run starts.

    Returns:
        `data.dataset_name`, ...
    """
    return [
        f"{section}.{option}"
        for section, option, kind, value in path_options(config)
        if value is not None
        and (kind == "local" or hub_name(value) != value or os.path.exists(value))
    ]


def settled(config: Config, local: Collection[str] | None, folder: Path) -> Config:
    """The same configuration, with absolute paths for all that is local, so that what is left of
    the form OWNER/NAME is a name on the hub.

    Args:
        local: what `local_options` returned when the run started; None: that was not noted, and
            whatever could be local is taken for it.
        folder: where the run was started.
    """
    sections = dict(config)
    for section, option, _, value in path_options(config):
        if value is None or not (local is None or f"{section}.{option}" in local):
            continue
        is_list = isinstance(value, list)
        absolute = [_absolute(path, folder) for path in (value if is_list else [value])]
        changes = {option: absolute if is_list else absolute[0]}
        sections[section] = dataclasses.replace(sections[section], **changes)
    return Config(sections)


def path_options(config: Config) -> Iterator[tuple[str, str, str, Any]]:
    """Section, name, kind and value of every option that takes a path."""
    for name, section in config.items():
        for field in dataclasses.fields(section):
            if kind := field.metadata.get("path"):
                yield name, field.name, kind, getattr(section, field.name)


def _absolute(path: str, folder: Path) -> str:
    return os.path.abspath(folder / os.path.expanduser(path))
