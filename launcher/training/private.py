"""What of a path may leave this machine: its last name.

Names of folders tell of people, clients and machines. What is shared of a run names local files and
folders by their last part only.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

#: A folder of huggingface_hub's cache: `models--ORGANISATION--NAME`.
_CACHED = re.compile(r"(?:^|/)(?:models|datasets)--([^/]+?)--([^/]+)(?:/|$)")
#: A name on the hub: `ORGANISATION/NAME`.
_HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+", re.ASCII)


def hub_name(text: str) -> str | None:
    """The name on the Hugging Face hub that a model or data set goes by; None: it is local.

    Nothing is looked for on the disk: a folder may have gone, or be on another machine. What a
    relative path is of, `launcher.hub.paths` tells.

    Args:
        text: a name, or an absolute path. A path into the hub's cache is of a name.
    """
    if match := _CACHED.search(text):
        return f"{match[1]}/{match[2]}"
    return text if _HUB_NAME.fullmatch(text) else None


def public_name(text: str) -> str:
    """A name on the hub as it is, and a path by its last part."""
    return hub_name(text) or last_part(text)


def last_part(path: str) -> str:
    """The name of a file or folder, without where it is."""
    return PurePosixPath(path.rstrip("/") or path).name or path


def public_value(value: Any) -> Any:
    """A value of an option that is not known to be a path. A text that begins like one (`/`, `~/`,
    `./`, `../`) is named by its last part, any other is only freed of the user's home folder."""
    if isinstance(value, list):
        return [public_value(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~/", "./", "../")):
        return public_name(value)
    home = str(Path.home())
    return value if home == "/" else value.replace(home, "~")
