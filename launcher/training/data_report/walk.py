"""Going through the rows of a data set: what is there, in arrays; what is wrong, by row."""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from launcher.training.data_report.jpeg import Warnings
from launcher.training.images import MissingImageError, check_image, load_rgb
from launcher.training.tables import SHOWN

if TYPE_CHECKING:
    import numpy as np

    from launcher.training.data_report.rows import Part
    from launcher.training.images import ImageSource

#: Told how far something has got: what goes on, what is counted (in the singular), how many of them
#: are done, of how many.
Tell: TypeAlias = Callable[[str, str, int, int], None]

#: Rows whose images are looked at together, by as many threads as there are processors, but no
#: more than these: decoded images are large.
_TOGETHER = 64
_MOST_THREADS = 8


@dataclass(frozen=True)
class Found:
    """Something about a row.

    Attributes:
        row: counted from 0.
        where: the row as messages call it.
        text: what was found.
        column: of the table, if it is about one.
        file: the image file, if it is about one.
    """

    row: int
    where: str
    text: str
    column: str | None = None
    file: str | None = None


class ByKind:
    """Counts of what was found, with examples.

    Args:
        every: keep all of it, not only the first few of each kind.
    """

    def __init__(self, every: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.items: dict[str, list[Found]] = defaultdict(list)
        self._every = every

    def add(self, kind: str, found: Found) -> None:
        """Count it, and keep it or not."""
        self.counts[kind] += 1
        if self._every or self.counts[kind] <= SHOWN:
            self.items[kind].append(found)


class Findings:
    """What `look_at` found.

    Attributes:
        part: what was looked at.
        full: whether every image was decoded.
        every: whether all of `problems` and `notes` are kept.
        rows: the numbers of the rows looked at, ascending, int64 `[N]`; what follows goes by
            positions in it.
        usable: bool `[N]`.
        sizes: heights and widths as stored, upright, uint32 `[N, columns, 2]`; 0: not known.
        identities: of images, uint64 `[N, columns]`; 0: none. Equal for the same image: with
            `full` the same content, else the same file (or content, where it is in the table).
        captions: hashes, uint64 `[M]`: all captions of all rows, in the order of the rows.
        caption_rows: int64 `[M]`.
        are_files: whether there are images that are files, and not in the table itself.
        sees_inside: whether damage inside JPEG data that decoders pass over has been looked for.
        without_caption: rows that have none of their own and get the default.
        problems: what keeps rows from being used.
        notes: what is unusual, but no obstacle.
    """

    def __init__(self, part: Part, *, full: bool, every: bool) -> None:
        import numpy as np

        self.part, self.full, self.every = part, full, every
        chosen = range(len(part.table)) if part.rows is None else part.rows
        self.rows = np.asarray(chosen, np.int64)
        columns = len(part.table.image_columns)
        self.usable = np.ones(len(self.rows), bool)
        self.sizes = np.zeros((len(self.rows), columns, 2), np.uint32)
        self.identities = np.zeros((len(self.rows), columns), np.uint64)
        self.without_caption = 0
        self.are_files = self.sees_inside = False
        self.problems, self.notes = ByKind(every), ByKind(every)
        self._captions, self._caption_rows = array("Q"), array("q")

    @property
    def captions(self) -> np.ndarray:
        import numpy as np

        return np.frombuffer(self._captions, np.uint64)

    @property
    def caption_rows(self) -> np.ndarray:
        import numpy as np

        return np.frombuffer(self._caption_rows, np.int64)

    def needed_captions(self) -> np.ndarray:
        """Hashes of the captions of usable rows, and of that of images to be made."""
        import numpy as np

        hashes = self.captions[self.usable[self.rows.searchsorted(self.caption_rows)]]
        default = self.part.table.default_caption
        if not self.part.to_make or default is None:
            return hashes
        return np.append(hashes, np.uint64(_hash(default.encode("utf-8"))))

    def texts(self, positions: np.ndarray) -> Iterator[str]:
        """Captions by their positions in `captions`, read again."""
        rows = self.caption_rows
        for position in positions:
            row = rows[position]
            # The captions of a row stand together, and rows are in ascending order.
            yield self.part.table.captions(int(row))[position - int(rows.searchsorted(row))]

    def problem(
        self, at: int, kind: str, text: str, column: str | None = None, file: str | None = None
    ) -> None:
        """The row at a position cannot be used."""
        self.usable[at] = False
        self.problems.add(kind, self._found(at, text, column, file))

    def note(
        self, at: int, kind: str, text: str, column: str | None = None, file: str | None = None
    ) -> None:
        """Something about the row at a position."""
        self.notes.add(kind, self._found(at, text, column, file))

    def _found(self, at: int, text: str, column: str | None, file: str | None) -> Found:
        row = int(self.rows[at])
        return Found(row, self.part.table.table.where(row), text, column, file)

    def add_captions(self, row: int, captions: Iterable[str]) -> None:
        """Those of the next row."""
        for caption in captions:
            self._captions.append(_hash(caption.encode("utf-8")))
            self._caption_rows.append(row)


def look_at(
    part: Part, *, full: bool = False, every: bool = False, tell: Tell | None = None
) -> Findings:
    """Go through the rows.

    Args:
        full: decode every image, and compare images by content. Otherwise as
            `launcher.training.images.check_image`: most of what can be wrong shows, but not
            damage inside the data of a JPEG. Of that, what keeps it from being decoded is a
            problem; what decoders pass over is a note, and needs OpenCV to be seen.
        every: keep every problem; otherwise a few of each kind.
        tell: told how far it is.
    """
    found = Findings(part, full=full, every=every)
    total = len(found.rows)
    what = f"checking {part.title}" if part.title else "checking"
    warnings = Warnings() if full else None
    found.sees_inside = warnings is not None and warnings.is_possible
    workers = min(os.cpu_count() or 1, _MOST_THREADS)
    if tell is not None:
        tell(what, "row", 0, total)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, total, _TOGETHER):
            positions = range(start, min(start + _TOGETHER, total))
            readable = [at for at in positions if not _is_unreadable(found, at)]
            for at in readable:
                _look_at_captions(found, at)
            _look_at_images(found, readable, pool, warnings)
            if tell is not None:
                tell(what, "row", positions.stop, total)
    return found


def _is_unreadable(found: Findings, at: int) -> bool:
    reason = found.part.unreadable.get(int(found.rows[at]))
    if reason is not None:
        found.problem(at, "line that cannot be read", reason)
    return reason is not None


def _look_at_captions(found: Findings, at: int) -> None:
    table, row = found.part.table, int(found.rows[at])
    column = table.caption_column
    try:
        captions = table._captions(row)
    except ValueError as error:
        value = table.table.get(row, table._stored_as[column]) if column is not None else None
        kind = "empty caption" if _is_empty(value) else "unusable caption"
        found.problem(at, kind, str(error), column)
        return
    for caption in captions:
        if not _is_text(caption):
            found.problem(
                at,
                "unusable caption",
                "it holds half of a surrogate pair (\\ud800 to \\udfff), which is no character",
                column,
            )
            return
    if column is not None and table.default_caption is not None:
        found.without_caption += _is_empty(table.table.get(row, table._stored_as[column]))
    found.add_captions(row, captions)


def _is_empty(value: Any) -> bool:
    """No caption, an empty one, or a list that is empty or has an empty one."""
    if isinstance(value, list):
        return not value or any(isinstance(v, str) and not v.strip() for v in value)
    return value is None or (isinstance(value, str) and not value.strip())


def _is_text(caption: str) -> bool:
    try:
        caption.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _look_at_images(
    found: Findings,
    positions: Sequence[int],
    pool: ThreadPoolExecutor,
    warnings: Warnings | None,
) -> None:
    """Look at the images of a few rows together. Values are read here, images by the threads."""
    table = found.part.table
    places = [(at, column) for at in positions for column in range(len(table.image_columns))]
    sources: list[tuple[ImageSource, str] | ValueError] = []
    for at, column in places:
        try:
            source = table._source(int(found.rows[at]), table.image_columns[column])
            found.are_files |= isinstance(source[0], (str, os.PathLike))
            sources.append(source)
        except ValueError as error:
            sources.append(error)
    # A list: no thread must be at work while standard error is caught.
    seen = list(pool.map(lambda source: _see(source, found.full), sources))
    for (at, column), asked, result in zip(places, sources, seen):
        if isinstance(result, ValueError):
            missing = isinstance(result, MissingImageError)
            kind = "missing image" if missing else "image that cannot be decoded"
            name = None if isinstance(asked, ValueError) else asked[1]
            text = str(result) if name is None else f"{name}: {result}"
            found.problem(at, kind, text, table.image_columns[column], name)
        else:
            found.sizes[at, column], found.identities[at, column] = result
            assert not isinstance(asked, ValueError)
            image, file = asked
            if warnings is not None and (said := warnings.of(image)) is not None:
                kind = "damaged image that still decodes to something"
                found.note(at, kind, f"{file}: {said}", table.image_columns[column], file)
    for at in positions:
        _compare_sizes(found, at)


def _see(
    source: tuple[ImageSource, str] | ValueError, full: bool
) -> tuple[tuple[int, int], int] | ValueError:
    """Height and width of an image, and what it is known again by; or what is wrong with it."""
    if isinstance(source, ValueError):
        return source
    image, _ = source
    try:
        size = load_rgb(image).shape[:2] if full else check_image(image)
        return (size[0], size[1]), _identity(image, full)
    except ValueError as error:
        return error


def _identity(image: ImageSource, full: bool) -> int:
    if isinstance(image, (str, os.PathLike)):
        path = os.path.realpath(image)
        return _hash(Path(path).read_bytes() if full else os.fsencode(path))
    return _hash(image if isinstance(image, bytes) else image.tobytes())


def _hash(content: bytes) -> int:
    """64 bits: among a million, two are taken for one with a probability of 3e-8."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little") or 1


def _compare_sizes(found: Findings, at: int) -> None:
    """The images of a row must have one aspect ratio, and should have one size."""
    table, sizes = found.part.table, found.sizes[at]
    if len(sizes) < 2 or not sizes.all():
        return
    by_column = {c: (int(h), int(w)) for c, (h, w) in zip(table.image_columns, sizes)}
    if problem := table._aspect_problem(by_column):
        found.problem(at, "row whose images differ in aspect ratio", problem)
    elif len(set(by_column.values())) > 1:
        shapes = ", ".join(f"{column!r} is {w} x {h}" for column, (h, w) in by_column.items())
        found.note(at, "row whose images differ in size, not in aspect ratio", shapes)
