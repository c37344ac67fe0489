"""The rows to look at, opened so that one line that cannot be read does not hide all others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.training.errors import UserError
from launcher.training.tables import JsonLines, Table, kind_of, open_table, parse_lines

if TYPE_CHECKING:
    from launcher.training.dataset import ImageTextTable


@dataclass(frozen=True)
class Part:
    """A table of a data set.

    Attributes:
        title: what it is, where a data set has several: `class images`; else empty.
        table: images and captions.
        rows: which rows to look at; None: all.
        unreadable: why a row cannot be read, for those that cannot.
        to_make: of the rows that are not looked at, how many images a run would make first.
        made: images that a run computes from the first image column, per row, such as edges.
    """

    title: str
    table: ImageTextTable
    rows: Sequence[int] | None = None
    unreadable: Mapping[int, str] = field(default_factory=dict)
    to_make: int = 0
    made: int = 0


def open_rows(**source: Any) -> tuple[Table, dict[int, str]]:
    """Open a data set; of JSON lines, even if some of the lines cannot be read.

    Args:
        source: the arguments of `launcher.training.tables.open_table`.

    Returns:
        The table, and why a row cannot be read for each such row, which has no columns. Rows are
        numbered as if these were mended.

    Raises:
        UserError: as `open_table`, for everything but single lines.
    """
    try:
        return open_table(**source), {}
    except UserError:
        file = _json_lines(source)
        found = None if file is None else _readable(file, source.get("max_train_samples"))
        if found is None:
            raise
        return found


def _json_lines(source: Mapping[str, Any]) -> Path | None:
    """The JSON-lines file that `open_table` reads, if it is one."""
    if source.get("jsonl_for_train") is not None:
        return Path(source["jsonl_for_train"]).expanduser()
    if source.get("dataset_name") is None:
        return None
    folder = Path(source["dataset_name"]).expanduser()
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    files = (folder / "metadata.jsonl", folder / source.get("split", "train") / "metadata.jsonl")
    return next((file for file in files if file.is_file()), None)


def _readable(file: Path, limit: int | None) -> tuple[JsonLines, dict[int, str]] | None:
    """The lines of a file that can be read; None if that is all of them, or none of them."""
    try:
        content = file.read_bytes()
    except OSError:
        return None  # `open_table` has said so
    lines: list[bytes] = []
    numbers: list[int] = []
    columns: dict[str, None] = {}
    unreadable: dict[int, str] = {}
    for number, line, value in parse_lines(content):
        if limit is not None and len(lines) == limit:
            break
        if isinstance(value, UnicodeDecodeError):
            unreadable[len(lines)] = f"it is not UTF-8 (byte {value.start + 1} of the line)"
        elif isinstance(value, json.JSONDecodeError):
            unreadable[len(lines)] = f"it is not JSON (column {value.colno}: {value.msg})"
        elif isinstance(value, dict):
            columns.update(dict.fromkeys(value))
        else:
            unreadable[len(lines)] = f"it is {kind_of(value)}, and {{...}} is expected"
        lines.append(b"{}" if len(lines) in unreadable else line)
        numbers.append(number)
    if not unreadable or len(unreadable) == len(lines):
        return None
    return JsonLines(str(file), file.parent, lines, numbers, list(columns)), unreadable
