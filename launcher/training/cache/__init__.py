"""Where encodings are kept: made once per distinct input, on disk, shared between runs.

    cache = DiskCache("~/.cache/launcher/encodings")
    cache.fill("text", keys, encode, describe)      # encodes what is missing
    cache.get(bytes(keys[0]))["prompt_embeds"]      # a view of the file

A key is 32 bytes, the SHA-256 digest of all that an encoding depends on, so an entry never goes
out of date: what depends on something else has another key. `shards` describes the files.
`launcher cache ls | verify | prune` looks after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .disk import DiskCache
    from .memory import MemoryCache
    from .shards import DamagedEntryError

__all__ = ["DamagedEntryError", "DiskCache", "MemoryCache"]

_MODULES = {"DamagedEntryError": "shards", "DiskCache": "disk", "MemoryCache": "memory"}


def __getattr__(name: str) -> Any:
    """Import late: the options of a cache, next to these, are read where numpy is not needed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
