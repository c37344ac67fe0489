"""Where the cache is, unless the user says otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_root() -> Path:
    """`launcher` in the user's cache folder, as the XDG base directory specification names it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "launcher"
