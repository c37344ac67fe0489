"""What of a run is uploaded, and under which names.

Weights, images and reports go as they are. The records of the run name folders of this machine:
copies go in which they are names without a path, and the command line is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.hub.card import CARD
from launcher.hub.finished import FinishedRun
from launcher.rundir import CONFIG, PROVENANCE
from launcher.training.private import public_name, public_value

_REPORT = "precision.json"
#: Of provenance.json, what does not tell of this machine's folders.
_PUBLIC = ("started", "seed", "device", "world_size", "recipe", "platform", "packages")


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


def items(run: FinishedRun) -> list[Item]:
    """The files of the upload; the card has been written."""
    whole = [CARD, *run.exported]
    if run.grid is not None:
        whole.append(run.grid)
    if (run.path / _REPORT).is_file():
        whole.append(_REPORT)
    return [
        *(Item(name, run.path / name) for name in whole),
        Item(CONFIG, public_config((run.path / CONFIG).read_text(encoding="utf-8")).encode()),
        *([Item(PROVENANCE, public_provenance(run.provenance))] if run.provenance else []),
    ]


def public_config(text: str) -> str:
    """A run's configuration, with paths by their last part."""
    import yaml

    config = yaml.safe_load(text)
    for name, value in config.items():
        if isinstance(value, dict):
            config[name] = {option: _public(option, given) for option, given in value.items()}
        elif name == "plugins":
            config[name] = [public_name(plugin) for plugin in value]
    head = "# Of the run, with local files and folders by their names only.\n"
    return head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _public(option: str, value: Any) -> Any:
    if option == "cache_dir":
        return None
    # A prompt may begin like a path.
    return value if "prompt" in option else public_value(value)


def public_provenance(provenance: Mapping[str, Any]) -> bytes:
    """A run's provenance without command line and paths."""
    kept: dict[str, Any] = {name: provenance[name] for name in _PUBLIC if name in provenance}
    python = provenance.get("python", {})
    kept["python"] = {k: v for k, v in python.items() if k != "executable"}
    kept["plugins"] = [
        {key: public_value(value) for key, value in plugin.items()}
        for plugin in provenance.get("plugins", [])
    ]
    return json.dumps(kept, indent=2).encode() + b"\n"
