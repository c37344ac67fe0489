"""Data sets as tables: opened from wherever they are, images still undecoded.

    table = open_table(dataset_name="examples/quickstart/data")
    table.columns, len(table), table.get(0, "text")

Local JSON lines are read here, line by line: errors can name the line, an edited file is never
mistaken for its cached version, and `datasets` (a second to import) is not needed. Parquet and
Arrow folders, hub names and everything else that is a data set go through Hugging Face
`datasets`, whose caches are in `HF_HOME` or `cache_dir`, never in the user's folder.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from launcher.training.errors import UserError

#: How many examples an error shows of each kind of problem.
SHOWN = 5


class Table(Protocol):
    """Rows and columns, as stored: images are paths or bytes."""

    @property
    def label(self) -> str:
        """What messages call it: a path, or a hub name."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns."""
        ...

    @property
    def folder(self) -> Path | None:
        """What relative paths in it are relative to; None: the current folder."""
        ...

    def __len__(self) -> int: ...

    def get(self, row: int, column: str) -> Any:
        """The value as stored, None if there is none."""
        ...

    def where(self, row: int) -> str:
        """The row as messages call it. Rows are counted from 0."""
        ...


# -------------------------------------------------------------------------------------------
# Opening
# -------------------------------------------------------------------------------------------


def open_table(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    jsonl_for_train: str | None = None,
    cache_dir: str | None = None,
    split: str = "train",
    max_train_samples: int | None = None,
) -> Table:
    """Open a data set without reading its images.

    Exactly one of `dataset_name` and `jsonl_for_train` is given.

    Args:
        dataset_name: a local folder or a name on the Hugging Face hub. A folder holds, in this
            order of precedence, what `Dataset.save_to_disk` wrote; a `metadata.jsonl` (or
            `<split>/metadata.jsonl`) with the images' paths relative to it; Arrow files; or
            anything that `datasets.load_dataset` can load, such as Parquet files.
        dataset_config_name: which of the data set's configurations, if it has several.
        jsonl_for_train: a file with one JSON object a line; paths in it are absolute or
            relative to the file's folder.
        cache_dir: where `datasets` keeps what it downloads and converts; default: as `HF_HOME`
            says.
        split: which part of a data set that has parts.
        max_train_samples: keep only the first rows, at most this many. (diffusers shuffles
            before it cuts.)

    Raises:
        UserError: nothing there, not readable, or no rows in it.
    """
    if (dataset_name is None) == (jsonl_for_train is None):
        raise UserError(
            "the training data are given by dataset_name (a folder or a hub name) or by "
            "jsonl_for_train (a file): set one of the two, and only one; now "
            + ("neither is set." if dataset_name is None else "both are set.")
        )
    if max_train_samples is not None and max_train_samples < 1:
        raise UserError(f"max_train_samples is {max_train_samples}, and must be at least 1.")

    if jsonl_for_train is not None:
        _refuse_config_name(dataset_config_name, "jsonl_for_train")
        table: Table = read_json_lines(Path(jsonl_for_train).expanduser(), max_train_samples)
    else:
        assert dataset_name is not None
        path = Path(dataset_name).expanduser()
        if path.is_dir():
            try:
                table = _open_folder(path, dataset_config_name, cache_dir, split, max_train_samples)
            except PermissionError as error:
                raise UserError(
                    f"dataset_name is {dataset_name!r}, of which this user may not read "
                    f"{error.filename}."
                ) from error
        elif path.exists():
            raise UserError(
                f"dataset_name is {dataset_name!r}, which is a file. Give the folder that holds "
                "it, or, if it has one JSON object a line, give it as jsonl_for_train."
            )
        elif _may_be_hub_name(dataset_name):
            table = _open_hub(
                dataset_name, dataset_config_name, cache_dir, split, max_train_samples
            )
        else:
            raise UserError(
                f"dataset_name is {dataset_name!r}: there is no such folder"
                + _nearest_folder(path)
                + ", and it cannot be a name on the Hugging Face hub, which has the form "
                "owner/name."
            )
    if len(table) == 0:
        raise UserError(f"the data set {table.label} is empty: it has no rows.")
    return table


def _open_folder(
    folder: Path, config_name: str | None, cache_dir: str | None, split: str, limit: int | None
) -> Table:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        _refuse_config_name(config_name, f"{folder}, which was written by save_to_disk,")
        return _open_saved(folder, split, limit)
    for metadata in (folder / "metadata.jsonl", folder / split / "metadata.jsonl"):
        if metadata.is_file():
            _refuse_config_name(config_name, str(metadata))
            return read_json_lines(metadata, limit)
    if arrow := sorted(folder.glob("*.arrow")):
        _refuse_config_name(config_name, f"{folder}, which holds Arrow files,")
        return _open_arrow(folder, arrow, split, limit)
    return _load_dataset(str(folder.resolve()), config_name, cache_dir, split, limit)


def _open_saved(folder: Path, split: str, limit: int | None) -> Table:
    import datasets

    label = str(folder)
    with _errors_name(label), _quiet():
        data = datasets.load_from_disk(label)
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            raise UserError(f"{folder} has no split {split!r}; it has {', '.join(data)}.")
        data = data[split]
    return ArrowTable(data, label, None, limit)


def _open_arrow(folder: Path, files: list[Path], split: str, limit: int | None) -> Table:
    import datasets

    of_split = re.compile(rf"(^|[-_.]){re.escape(split)}([-_.])")
    chosen = [file for file in files if of_split.search(file.name)] or files
    with _errors_name(str(folder)), _quiet():
        # Memory-mapped where they are: nothing is copied into a cache.
        data = datasets.concatenate_datasets([datasets.Dataset.from_file(str(f)) for f in chosen])
    return ArrowTable(data, str(folder), folder, limit)


def _open_hub(
    name: str, config_name: str | None, cache_dir: str | None, split: str, limit: int | None
) -> Table:
    from datasets.exceptions import DatasetNotFoundError

    with _offline_if_unreachable() as offline:
        try:
            return _load_dataset(name, config_name, cache_dir, split, limit)
        except UserError as error:
            if offline or isinstance(error.__cause__, ConnectionError):
                reason = (
                    "as a name on the Hugging Face hub it cannot be looked up, because the hub "
                    "cannot be reached and no copy is in the cache. Correct the path, or download "
                    "the data set where there is a network and give its folder."
                )
            elif isinstance(error.__cause__, DatasetNotFoundError):
                reason = (
                    "the Hugging Face hub has no data set of this name, or not for you (gated and "
                    "private ones need `hf auth login`)."
                )
            else:
                raise
            folder = "there is no such folder" + _nearest_folder(Path(name))
            raise UserError(f"dataset_name is {name!r}: {folder}, and {reason}") from error


def _load_dataset(
    name: str, config_name: str | None, cache_dir: str | None, split: str, limit: int | None
) -> Table:
    import datasets

    with _errors_name(name), _quiet():
        data = datasets.load_dataset(name, config_name, split=split, cache_dir=cache_dir)
    return ArrowTable(data, name, Path(name) if os.path.isdir(name) else None, limit)


def _may_be_hub_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) is not None


def _nearest_folder(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return ""
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {str(parent / near[0])!r}?)" if near else ""


def _refuse_config_name(config_name: str | None, data: str) -> None:
    if config_name is not None:
        raise UserError(
            f"dataset_config_name is {config_name!r}, but {data} has no configurations to choose "
            "from. Leave it out."
        )


@contextmanager
def _errors_name(label: str) -> Iterator[None]:
    """Turn what `datasets` raises for data that it cannot load into a UserError."""
    import datasets

    try:
        yield
    except (
        OSError,
        ValueError,  # unknown configuration or split; pyarrow's ArrowInvalid
        RuntimeError,  # data sets that are Python scripts
        KeyError,
        datasets.exceptions.DatasetsError,
    ) as error:
        cause = error.__cause__ if "error occurred while generating" in str(error) else None
        reason = " ".join(str(cause or error).split())
        if not reason or isinstance(error, KeyError):
            reason = f"{type(error).__name__} {reason}".rstrip()
        raise UserError(
            f"the data set {label} cannot be loaded: {reason} (from the datasets library, version "
            f"{datasets.__version__})."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no messages from `datasets` and the hub; what fails is raised."""
    import datasets
    import huggingface_hub.utils

    hub: Any = huggingface_hub.utils
    bars = datasets.utils.are_progress_bars_disabled(), hub.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    hub.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        if not bars[0]:
            datasets.enable_progress_bars()
        if not bars[1]:
            hub.enable_progress_bars()


@contextmanager
def _offline_if_unreachable() -> Iterator[bool]:
    """Without a network, look in the cache only: `datasets` would retry for half a minute."""
    import socket
    import urllib.parse
    import urllib.request

    import datasets
    import huggingface_hub.constants as hub

    offline = bool(hub.HF_HUB_OFFLINE)
    if not offline and not urllib.request.getproxies():
        endpoint = urllib.parse.urlsplit(hub.ENDPOINT)
        try:
            socket.getaddrinfo(endpoint.hostname, endpoint.port or 443)
        except OSError:
            offline = True
    before = datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = offline
    try:
        yield offline
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before


# -------------------------------------------------------------------------------------------
# Tables
# -------------------------------------------------------------------------------------------


class JsonLines:
    """A file with one JSON object a line, kept as read; blank lines do not count as rows.

    Args:
        label: what messages call it.
        folder: what relative paths in it are relative to.
        lines: the rows' JSON text.
        numbers: the rows' line numbers, counted from 1.
        columns: all keys that occur.
    """

    def __init__(
        self,
        label: str,
        folder: Path,
        lines: Sequence[bytes],
        numbers: Sequence[int],
        columns: Sequence[str],
    ) -> None:
        self.label = label
        self.folder = folder
        self.columns = columns
        self._lines = lines
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, row: int, column: str) -> Any:
        """The value, None if the row has no such key."""
        return json.loads(self._lines[row].decode("utf-8")).get(column)

    def where(self, row: int) -> str:
        """For example "row 12 (line 13)"."""
        return f"row {row} (line {self._numbers[row]})"


def parse_lines(content: bytes) -> Iterator[tuple[int, bytes, Any]]:
    """The lines of a JSON-lines file that are not blank.

    Yields:
        The line's number, counted from 1; the line; and its value, or the UnicodeDecodeError or
        JSONDecodeError that says why it has none.
    """
    for number, line in enumerate(content.removeprefix(_BYTE_ORDER_MARK).split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, line, json.loads(line.decode("utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                yield number, line, error


#: What some editors put first.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json_lines(path: Path, limit: int | None = None) -> JsonLines:
    """Read a JSON-lines file, at most `limit` rows of it.

    Raises:
        UserError: no such file, not UTF-8, or lines that are not JSON objects.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if path.is_dir():
            hint = ": it is a folder; give it as dataset_name"
        else:
            hint = f": {error.strerror}"
        raise UserError(f"the file {path} cannot be read{hint}.") from error

    if content.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"["):
        raise UserError(
            f"the file {path} is one JSON list. JSON Lines are expected: one object a line, "
            "without brackets around and commas between them."
        )
    lines: list[bytes] = []
    numbers: list[int] = []
    columns: dict[str, None] = {}
    problems = Problems()
    for number, line, value in parse_lines(content):
        if limit is not None and len(lines) == limit:
            break
        if isinstance(value, UnicodeDecodeError):
            problems.add("line that is not UTF-8", f"line {number}, byte {value.start + 1}")
        elif isinstance(value, json.JSONDecodeError):
            problems.add(
                "line that is not JSON", f"line {number}, column {value.colno}: {value.msg}"
            )
        elif not isinstance(value, dict):
            problems.add(
                "line that is not a JSON object",
                f"line {number}: {kind_of(value)}, and {{...}} is expected",
            )
        else:
            columns.update(dict.fromkeys(value))
            lines.append(line)
            numbers.append(number)
    problems.raise_any(
        f"the file {path} must have one JSON object a line (JSON Lines, UTF-8)", "Mend these lines."
    )
    return JsonLines(str(path), path.parent, lines, numbers, list(columns))


class ArrowTable:
    """A `datasets.Dataset`, its images undecoded.

    Args:
        data: the data set.
        label: what messages call it.
        folder: what relative paths in it are relative to; None: the current folder.
        limit: keep only the first rows.
    """

    def __init__(self, data: Any, label: str, folder: Path | None, limit: int | None) -> None:
        import datasets

        for column, feature in data.features.items():
            if isinstance(feature, datasets.Image):
                data = data.cast_column(column, datasets.Image(decode=False))
        if limit is not None and limit < len(data):
            data = data.select(range(limit))
        self.label = label
        self.folder = folder
        self.columns = list(data.column_names)
        # One view a column, so that captions can be read without the bytes of the images.
        self._views = {column: data.select_columns([column]) for column in self.columns}
        self._length = len(data)

    def __len__(self) -> int:
        return self._length

    def get(self, row: int, column: str) -> Any:
        """The value; an image as `{"bytes": ..., "path": ...}`."""
        return self._views[column][row][column]

    def where(self, row: int) -> str:
        """For example "row 12"."""
        return f"row {row}"


# -------------------------------------------------------------------------------------------
# Messages
# -------------------------------------------------------------------------------------------


class Problems:
    """Collects what is wrong by kind, and raises one UserError that shows a few of each."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, kind: str, text: str) -> None:
        """Count a problem; the first few of each kind are kept."""
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            self._by_kind[kind].append(text)

    def raise_any(self, introduction: str, way_out: str) -> None:
        """Raise if there is anything."""
        if not self._counts:
            return
        lines = [f"{introduction}:"]
        for kind, texts in self._by_kind.items():
            count = self._counts[kind]
            lines.append(f"  {count} x {kind}")
            lines += [f"    {text}" for text in texts]
            if count > len(texts):
                lines.append(f"    ... and {count - len(texts)} more")
        raise UserError("\n".join([*lines, way_out]))


def find_column(table: Table, column: str) -> str:
    """The name under which a table holds a column.

    In the tables of image folders a path may stand under `file_name` for the column `image`,
    and under `<column>_file_name` for any other, as in `datasets`' image folders.

    Raises:
        UserError: there is none; lists those that exist.
    """
    aliases = [f"{column}_file_name", *(["file_name"] if column == "image" else [])]
    for name in (column, *aliases):
        if name in table.columns:
            return name
    near = difflib.get_close_matches(column, table.columns, n=1)
    raise UserError(
        f"the data set {table.label} has no column {column!r}; it has "
        + (", ".join(repr(name) for name in table.columns) or "no columns at all")
        + "."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + " The options image_column, conditioning_image_column and caption_column name the "
        "columns to use."
    )


def kind_of(value: Any) -> str:
    """What a value is, in words for a message."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"a truth value ({value})"
    if isinstance(value, (int, float)):
        return f"a number ({value})"
    names = {"str": "a text", "list": "a list", "dict": "an object", "bytes": "binary data"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")
