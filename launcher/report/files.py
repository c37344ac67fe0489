"""Files of a run that hold one JSON object or one configuration, and the checkpoints in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launcher.report.shape import misfit
from launcher.training import checkpoint
from launcher.training.errors import UserError


def read_json(path: Path, shape: dict[Any, Any]) -> dict[str, Any] | None:
    """A file's object; None if there is no such file.

    Args:
        path: of the file.
        shape: of `launcher.report.shape`.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    return _checked(path, content, shape)


def read_config(path: Path) -> dict[str, Any]:
    """The options of a run by section; empty if there is no such file.

    Raises:
        UserError: it is damaged.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(path, str(error)) from error
    return _checked(path, content, {"train": {}})


def damaged(path: Path, reason: str) -> UserError:
    """The error about a file that cannot be read."""
    return UserError(
        f"{path} cannot be read: {reason}. Restore it from a copy, or leave this run out."
    )


@dataclass(frozen=True)
class Written:
    """A file or a folder.

    Attributes:
        name: in the folder of the run.
        size: in bytes.
        time: when it was last written to, in seconds since 1970.
    """

    name: str
    size: int
    time: float


def checkpoints(folder: Path) -> list[Written]:
    """The checkpoints of a run in the order of their steps. One that the run removes meanwhile is
    left out."""
    found = []
    for step in checkpoint.steps_in(folder):
        path = checkpoint.path_of(folder, step)
        try:
            size = sum(
                os.stat(os.path.join(parent, name)).st_size
                for parent, _, names in os.walk(path)
                for name in names
            )
            found.append(Written(path.name, size, path.stat().st_mtime))
        except FileNotFoundError:
            continue
    return found


def written(folder: Path, name: str) -> Written | None:
    """A file of a run; None: it is not there any more."""
    try:
        about = (folder / name).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: no file can have that name
        raise damaged(folder / name, str(error)) from error
    return Written(name, about.st_size, about.st_mtime)


def _checked(path: Path, content: Any, shape: dict[Any, Any]) -> dict[str, Any]:
    wrong = misfit(content, shape)
    if wrong:
        raise damaged(path, wrong)
    return dict(content)
