"""The versions of what the results of a run depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.provenance import DECISIVE


def versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    """By distribution: those of `provenance.json` that matter, and those that plugins are of."""
    packages = provenance.get("packages", {})
    known = {name.lower().replace("_", "-"): str(version) for name, version in packages.items()}
    plugins = [plugin.get("distribution") for plugin in provenance.get("plugins", [])]
    wanted = [*DECISIVE, *(name.lower().replace("_", "-") for name in plugins if name)]
    return {name: known[name] for name in dict.fromkeys(wanted) if name in known}
