"""What of a run is uploaded, and under which names.

Weights, images and the report on precision go as they are. The other records of the run name
folders of this machine: copies go in which they are names without a path, and what nobody else
needs is left out: the command line, `tracking`, packages that no result depends on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.types import Config
from launcher.hub.card import CARD
from launcher.hub.finished import PRECISION, FinishedRun
from launcher.hub.paths import path_options
from launcher.hub.versions import versions
from launcher.rundir import CONFIG, PROVENANCE
from launcher.training.private import last_part, public_name, public_value

#: Of provenance.json, what is uploaded as it is.
_PUBLIC = ("started", "seed", "device", "world_size", "recipe")
#: Of its other entries, what is not.
_PRIVATE = {"python": ("executable",), "platform": ("release",)}


@dataclass(frozen=True)
class Item:
    """A file of the upload.

    Attributes:
        name: in the repository.
        content: where it is on disk, or what is in it.
    """

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """In bytes."""
        content = self.content
        return len(content) if isinstance(content, bytes) else content.stat().st_size


def items(run: FinishedRun, config: Config) -> list[Item]:
    """The files of the upload; the card has been written.

    Args:
        config: the run's, from `launcher.hub.paths.settled`.
    """
    whole = [CARD, *run.exported]
    if run.grid is not None:
        whole.append(run.grid)
    if run.precision:
        whole.append(PRECISION)
    text = (run.path / CONFIG).read_text(encoding="utf-8")
    return [
        *(Item(name, run.path / name) for name in whole),
        Item(CONFIG, public_config(text, config).encode()),
        *([Item(PROVENANCE, public_provenance(run.provenance))] if run.provenance else []),
    ]


def public_config(text: str, config: Config) -> str:
    """A run's configuration, with local files and folders by their last part.

    Args:
        text: of config.yaml.
        config: the same, from `launcher.hub.paths.settled`.
    """
    import yaml

    content = {name: value for name, value in yaml.safe_load(text).items() if name != "tracking"}
    known = {(section, option): value for section, option, _, value in path_options(config)}
    for name, value in content.items():
        if isinstance(value, dict):
            settled = {option: known.get((name, option), given) for option, given in value.items()}
            content[name] = {
                option: _public(option, given, (name, option) in known)
                for option, given in settled.items()
            }
        elif name == "plugins":
            content[name] = [last_part(plugin) for plugin in value]
    head = "# Of the run, with local files and folders by their names only.\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _public(option: str, value: Any, is_path: bool) -> Any:
    if option == "cache_dir":
        return None
    if is_path and value is not None:
        return [*map(public_name, value)] if isinstance(value, list) else public_name(value)
    # A prompt may begin like a path.
    return value if "prompt" in option else public_value(value)


def public_provenance(provenance: Mapping[str, Any]) -> bytes:
    """A run's provenance without the command line, and what else tells of this machine."""
    kept: dict[str, Any] = {name: provenance[name] for name in _PUBLIC if name in provenance}
    for name, private in _PRIVATE.items():
        entry = provenance.get(name, {})
        kept[name] = {key: value for key, value in entry.items() if key not in private}
    kept["packages"] = versions(provenance)
    kept["plugins"] = [
        {key: last_part(value) if key in ("name", "file") else value for key, value in plugin}
        for plugin in map(dict.items, provenance.get("plugins", []))
    ]
    return json.dumps(kept, indent=2).encode() + b"\n"
