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
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def hub_name(text: str) -> str | None:
    """The name on the Hugging Face hub that a model or data set goes by; None: it is local.

    Args:
        text: what an option says, a name or a path. A path into the hub's cache is of a name.
    """
    if match := _CACHED.search(text):
        return f"{match[1]}/{match[2]}"
    if _HUB_NAME.fullmatch(text) and not text.startswith(".") and not Path(text).exists():
        return text
    return None


def public_name(text: str) -> str:
    """A name on the hub as it is, and a path by its last part."""
    name = hub_name(text)
    if name is not None:
        return name
    return PurePosixPath(text.rstrip("/") or text).name or text


def public_value(value: Any) -> Any:
    """A value of an option, in which paths are names; see `public_name`.

    A text is a path if it begins like one (`/`, `~`, `.`) or has three parts or more without
    a blank; any other text is only freed of the user's home folder.
    """
    if isinstance(value, list):
        return [public_value(item) for item in value]
    if not isinstance(value, str):
        return value
    is_path = value.startswith(("/", "~/", "./", "../")) or (
        value.count("/") > 1 and not re.search(r"\s|://", value)
    )
    if is_path:
        return public_name(value)
    home = str(Path.home())
    return value if home == "/" else value.replace(home, "~")
