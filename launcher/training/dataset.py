"""Images with captions: check a data set and read it row by row.

table = open_table(dataset_name="examples/quickstart/data")
data = ImageTextTable(table, image_columns=["image", "conditioning_image"])
data.check()                                # every caption and image, before the long work
data.captions(0), data.image(0, "image")    # ("deep sky blue circle ...",), uint8 [H, W, 3]
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from launcher.training.errors import UserError
from launcher.training.images import (
    MissingImageError,
    check_image,
    image_size,
    load_rgb,
    same_aspect,
)
from launcher.training.tables import Problems, Table, find_column, kind_of, open_table

if TYPE_CHECKING:
    import numpy as np

    from launcher.training.digests import Digest
    from launcher.training.images import Array, ImageSource

T = TypeVar("T")

__all__ = ["ImageText", "ImageTextTable", "Table", "open_table"]


@dataclass(frozen=True)
class ImageText:
    """One row, decoded.

    Attributes:
        images: uint8 `[H, W, 3]` each, in the order of the table's image columns; sizes as stored.
        captions: at least one, none empty; none where the table has no captions.
        row: its number, counted from 0.
    """

    images: tuple[Array, ...]
    captions: tuple[str, ...]
    row: int


class ImageTextTable:
    """The images and captions of a table.

    Columns go by the names that `find_column` understands.

    Args:
        table: from `open_table`.
        image_columns: which columns are images.
        caption_column: which column is the caption, or a list of them; None: there is none.
        default_caption: the caption of rows that have none (no value, or an empty text); None:
            such rows cannot be used, unless there is no column either: then there are no captions.

    Raises:
        UserError: there is no such column.
    """

    def __init__(
        self,
        table: Table,
        image_columns: Sequence[str] = ("image",),
        caption_column: str | None = "text",
        default_caption: str | None = None,
    ) -> None:
        self.table = table
        self.image_columns = tuple(image_columns)
        self.caption_column = caption_column
        self.default_caption = default_caption
        columns = [*image_columns, *([] if caption_column is None else [caption_column])]
        self._stored_as = {column: find_column(table, column) for column in columns}
        self._sizes: np.ndarray | None = None  # as `sizes` returns them; 0 0: not known yet

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> ImageText:
        """Decode a row. UserError if an image or a caption of it cannot be used."""
        row = self._checked(row)
        images = tuple(self.image(row, column) for column in self.image_columns)
        sizes = {c: (i.shape[0], i.shape[1]) for c, i in zip(self.image_columns, images)}
        if problem := self._aspect_problem(sizes):
            raise UserError(f"{self.place(row)}: {problem}.")
        return ImageText(images=images, captions=self.captions(row), row=row)

    def captions(self, row: int) -> tuple[str, ...]:
        """The caption or captions of a row, without touching its images."""
        row = self._checked(row)
        try:
            return self._captions(row)
        except ValueError as error:
            raise UserError(
                f"{self.place(row)}, column {self.caption_column!r}: {error}."
            ) from error

    def image(self, row: int, column: str) -> Array:
        """An image of a row: uint8 `[H, W, 3]`, upright, in the size it is stored in."""
        return self._read(load_rgb, self._checked(row), column)

    def digest(self, row: int, column: str, of_file: Digest) -> bytes:
        """The SHA-256 digest of an image as it is stored, undecoded.

        Args:
            of_file: digest of a file, such as `launcher.training.digests.of_file`.
        """

        def digest(source: ImageSource) -> bytes:
            if isinstance(source, bytes):
                return hashlib.sha256(source).digest()
            assert isinstance(source, Path), "what `_image_source` returns"
            try:
                return of_file(source)
            except OSError as error:
                raise ValueError(f"it cannot be read: {error.strerror or error}") from error

        return self._read(digest, self._checked(row), column)

    def sizes(self) -> np.ndarray:
        """Heights and widths of the first image column, upright, as stored: uint32 `[N, 2]`.

        Those that `check` came by are remembered, others are read from the images' headers.
        UserError if an image cannot be used; names the row.
        """
        import numpy as np

        known = self._known_sizes()
        for row in np.flatnonzero(known[:, 0] == 0):
            known[row] = self._read(image_size, int(row), self.image_columns[0])
        return known

    def _known_sizes(self) -> np.ndarray:
        import numpy as np

        if self._sizes is None:
            self._sizes = np.zeros((len(self), 2), np.uint32)
        return self._sizes

    def _read(self, read: Callable[[ImageSource], T], row: int, column: str) -> T:
        """Apply a function of `launcher.training.images`; its ValueError becomes a UserError."""
        try:
            source, name = self._source(row, column)
        except ValueError as error:
            raise UserError(f"{self.place(row)}, column {column!r}: {error}.") from error
        try:
            return read(source)
        except ValueError as error:
            raise UserError(
                f"{self.place(row)}, column {column!r}: {name} cannot be used: {error}."
            ) from error

    def place(self, row: int) -> str:
        """A row for the beginning of a message."""
        return f"data set {self.table.label}, {self.table.where(row)}, rows counted from 0"

    def check(self, rows: Iterable[int] | None = None) -> None:
        """Look at every caption and every image, and report all that cannot be used at once.

        Images are verified as `launcher.training.images.check_image` does: damage inside JPEG
        data can stay unseen, and is then found when the image is read. The images of one row
        must have the same aspect ratio, because they are cropped alike.

        Args:
            rows: which rows; default: all.

        Raises:
            UserError: names the kind, the row and the file of up to 5 problems of each kind.
        """
        problems = Problems()
        for row in range(len(self)) if rows is None else rows:
            for kind, text in self._problems(self._checked(row)):
                problems.add(kind, text)
        problems.raise_any(
            f"the data set {self.table.label} has rows that cannot be used (counted from 0)",
            "Mend or remove these rows.",
        )

    def _problems(self, row: int) -> list[tuple[str, str]]:
        """What is wrong with a row: kind and description."""
        found = []
        where = self.table.where(row)
        try:
            self._captions(row)
        except ValueError as error:
            found.append(("unusable caption", f"{where}, column {self.caption_column!r}: {error}"))
        sizes = {}
        for column in self.image_columns:
            name = ""
            try:
                source, name = self._source(row, column)
                sizes[column] = check_image(source)
            except ValueError as error:
                missing = isinstance(error, MissingImageError)
                kind = "missing image" if missing else "image that cannot be decoded"
                found.append(
                    (kind, f"{where}, column {column!r}: {name}{': ' if name else ''}{error}")
                )
        if self.image_columns[0] in sizes:
            self._known_sizes()[row] = sizes[self.image_columns[0]]
        if len(sizes) == len(self.image_columns) and (problem := self._aspect_problem(sizes)):
            found.append(("row whose images differ in aspect ratio", f"{where}: {problem}"))
        return found

    def _aspect_problem(self, sizes: Mapping[str, tuple[int, int]]) -> str | None:
        """What to say if the images of a row, by height and width, are of different shape."""
        first = sizes[self.image_columns[0]]
        if all(same_aspect(first, size) for size in sizes.values()):
            return None
        shapes = ", ".join(f"{column!r} is {w} x {h}" for column, (h, w) in sizes.items())
        return (
            f"the images of a row are cropped alike and need one aspect ratio, but {shapes} "
            "(width x height)"
        )

    def _captions(self, row: int) -> tuple[str, ...]:
        """The captions of a row. ValueError if it has none that can be used."""
        if self.caption_column is None:
            return () if self.default_caption is None else (self.default_caption,)
        value = self.table.get(row, self._stored_as[self.caption_column])
        if self.default_caption is not None and (
            value is None or (isinstance(value, str) and not value.strip())
        ):
            return (self.default_caption,)
        return _captions(value)

    def _source(self, row: int, column: str) -> tuple[ImageSource, str]:
        return _image_source(self.table.get(row, self._stored_as[column]), self.table.folder)

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return row


def _captions(value: Any) -> tuple[str, ...]:
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list):
        raise ValueError(
            f"the caption is {kind_of(value)}, and text or a list of texts is expected"
        )
    if not captions:
        raise ValueError("the caption is an empty list")
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f"the list of captions holds {kind_of(caption)}")
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise ValueError("the caption holds half of a surrogate pair, no character") from None
        if not caption.strip():
            raise ValueError(
                "the caption is empty" if isinstance(value, str) else "an empty caption in the list"
            )
    return tuple(captions)


def _image_source(value: Any, folder: Path | None) -> tuple[ImageSource, str]:
    """What to decode, and what to call it. ValueError if it is not an image."""
    if isinstance(value, Mapping) and {"bytes", "path"} & set(value):
        if value.get("bytes") is not None:
            return value["bytes"], f"the stored image {value.get('path') or ''}".rstrip()
        value = value.get("path")
    if value is None or value == "" or value == b"":
        raise MissingImageError("nothing is stored there")
    if isinstance(value, bytes):
        return value, "the stored image"
    if isinstance(value, (str, Path)):
        if re.match(r"https?://", str(value)):
            raise ValueError(f"{value} is an address; download the images and give their paths")
        path = Path(value).expanduser()
        if folder is not None:
            path = folder / path  # an absolute path stays what it is
        return path, str(path)
    raise ValueError(f"{kind_of(value)} is stored there, and a path or an image is expected")
