"""What a run ran with: all that its figures may depend on but the data."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any


def now() -> str:
    """The time, in UTC and in whole seconds, as in ISO 8601."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


#: Distributions that results depend on.
DECISIVE = ("flux-controlnet-plugin", "mindspore", "mindone", "transformers", "numpy")


def provenance(
    *,
    command_line: Sequence[str],
    seed: int,
    device: str,
    world_size: int,
    plugins: Sequence[Mapping[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """The content of `provenance.json`.

    Args:
        command_line: the arguments as typed.
        seed: the run's seed.
        device: what it runs on, such as `CPU` or `Ascend`.
        world_size: number of processes.
        plugins: what `Plugins.files()` returns, with a hash of each file.
        more: further entries that JSON can hold.
    """
    return {
        "command_line": list(command_line),
        "working_directory": os.getcwd(),
        "started": now(),
        "seed": seed,
        "device": device,
        "world_size": world_size,
        **more,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
        "plugins": [dict(plugin) for plugin in plugins],
        "packages": installed_packages(),
    }


def installed_packages() -> dict[str, str]:
    """The version of every installed distribution, by name."""
    from importlib.metadata import distributions

    # The first of a name on sys.path is the one that is imported.
    found: dict[str, tuple[str, str]] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:  # None for the remains of a broken installation
            found.setdefault(name.lower().replace("_", "-"), (name, distribution.version))
    return dict(sorted(found.values(), key=lambda item: item[0].lower()))
