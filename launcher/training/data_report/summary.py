"""Findings as figures: a dict of plain numbers, texts and lists, ready for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from launcher.training.buckets import nearest
from launcher.training.tables import SHOWN

if TYPE_CHECKING:
    import numpy as np

    from launcher.training.data_report.walk import ByKind, Findings, Found, Tell

#: Share of an image's area beyond which a crop is worth a word.
CROP_LIMIT = 0.25
#: Bounds of the histogram of aspect ratios, width / height. Rounded sizes of common ratios lie
#: well inside: 2:3 is 0.67, 3:4 0.75, 4:3 1.33, 3:2 1.5, 16:9 1.78.
ASPECT_BOUNDS = (0.5, 0.71, 0.9, 1.1, 1.41, 2.0)

#: Captions counted together, and characters of one that are shown.
_TOGETHER = 1024
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Length:
    """A way to measure captions.

    Attributes:
        unit: what is counted, in the plural: `T5 tokens`.
        count: lengths of captions.
        limit: what is longer is cut; None: nothing is.
        limited_by: what sets the limit: `data.max_sequence_length`.
    """

    unit: str
    count: Callable[[Sequence[str]], Sequence[int]]
    limit: int | None = None
    limited_by: str = ""


#: Where there is no tokenizer.
CHARACTERS = Length("characters", lambda captions: [len(caption) for caption in captions])


def summary(
    found: Findings,
    *,
    sizes: Sequence[tuple[int, int]],
    lengths: Sequence[Length] = (CHARACTERS,),
    tell: Tell | None = None,
) -> dict[str, Any]:
    """The figures of one part of a data set.

    Args:
        sizes: heights and widths that images are trained at; of several, each at the nearest.
        lengths: how captions are measured.
        tell: told how far it is with measuring.

    Returns:
        `title`, `decoded`, `jpeg_data_checked`, `data_set`, `rows`, `usable_rows`, `to_make`,
        `images`, `training_sizes`, `crop`, `enlarged`, `captions`, `problems`, `notes`. Sizes are
        `{"width": ..., "height": ...}` in pixels. With `Findings.every`, whatever gives examples
        names all rows.
    """
    table = found.part.table
    return {
        "title": found.part.title,
        "decoded": found.full,
        "jpeg_data_checked": found.sees_inside,
        "data_set": table.table.label,
        "rows": len(found.rows),
        "usable_rows": int(found.usable.sum()),
        "to_make": found.part.to_make,
        "images": {
            column: _image_figures(found, number)
            for number, column in enumerate(table.image_columns)
        },
        **_training_figures(found, sizes),
        "captions": _caption_figures(found, lengths, tell),
        "problems": _kinds(found.problems),
        "notes": _kinds(found.notes),
    }


def distinct_images(
    found: Findings, sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], int]]:
    """How many different images would be encoded at each size, those of usable rows.

    Yields:
        `(height, width)` and a number, made and missing images included.
    """
    import numpy as np

    usable = found.usable & found.sizes.all(axis=(1, 2))
    groups = nearest(found.sizes[usable, 0], sizes)
    identities = found.identities[usable]
    for number, size in enumerate(sizes):
        here = identities[groups == number]
        count = len(np.unique(here)) + found.part.made * len(np.unique(here[:, 0]))
        yield size, count + (found.part.to_make if number == 0 else 0)


# -------------------------------------------------------------------------------------------
# Images
# -------------------------------------------------------------------------------------------


def _image_figures(found: Findings, column: int) -> dict[str, Any]:
    """Counts, sizes and aspect ratios of a column of images."""
    import numpy as np

    known = found.sizes[:, column, 0] > 0
    sizes = found.sizes[known, column]
    figures: dict[str, Any] = {
        "images": len(sizes),
        "distinct": len(np.unique(found.identities[known, column])),
        "distinct_by": "file" if found.are_files and not found.full else "content",
    }
    if not len(sizes):
        return figures
    for side, values in (("width", sizes[:, 1]), ("height", sizes[:, 0])):
        figures[side] = {
            "min": int(values.min()),
            "median": int(np.median(values)),
            "max": int(values.max()),
        }
    stored, counts = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    figures["sizes"] = len(stored)
    figures["most_common"] = [{**_size(stored[i]), "images": int(counts[i])} for i in order[:SHOWN]]
    ratios = sizes[:, 1] / sizes[:, 0]
    places = np.bincount(np.digitize(ratios, ASPECT_BOUNDS), minlength=len(ASPECT_BOUNDS) + 1)
    figures["aspect_ratios"] = [
        {"from": low, "below": high, "images": int(count)}
        for low, high, count in zip((0.0, *ASPECT_BOUNDS), (*ASPECT_BOUNDS, None), places)
    ]
    return figures


def _training_figures(found: Findings, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What becomes of the images of the first column at the sizes they are trained at."""
    import numpy as np

    at = np.flatnonzero(found.sizes[:, 0, 0])
    stored = found.sizes[at, 0].astype(np.float64)
    groups = nearest(stored, sizes) if len(at) else np.zeros(0, np.uint8)
    boxes = np.asarray(sizes, np.float64)[groups]
    # As `resize_and_crop`: scaled until the image just covers the box.
    scale = (boxes / stored).max(axis=1)
    lost = 1 - boxes.prod(axis=1) / (stored.prod(axis=1) * scale**2)
    counts = np.bincount(groups, minlength=len(sizes))
    return {
        "training_sizes": [
            {**_size(size), "images": int(count)} for size, count in zip(sizes, counts)
        ],
        "crop": {
            "limit": CROP_LIMIT,
            "largest": float(lost.max(initial=0.0)),
            **_examples(found, at[lost > CROP_LIMIT]),
        },
        "enlarged": {
            "largest": float(scale.max(initial=0.0)),
            **_examples(found, at[scale > 1]),
        },
    }


def _size(size: Any) -> dict[str, int]:
    """(height, width), named."""
    return {"width": int(size[1]), "height": int(size[0])}


def _examples(found: Findings, positions: np.ndarray) -> dict[str, Any]:
    """How many rows, and which; the first of them unless all are wanted."""
    rows = found.rows[positions if found.every else positions[:SHOWN]]
    return {"images": len(positions), "rows": rows.tolist()}


# -------------------------------------------------------------------------------------------
# Captions
# -------------------------------------------------------------------------------------------


def _caption_figures(
    found: Findings, lengths: Sequence[Length], tell: Tell | None
) -> dict[str, Any]:
    """Counts, repetitions and lengths."""
    import numpy as np

    hashes = found.captions
    _, first, inverse, counts = np.unique(
        hashes, return_index=True, return_inverse=True, return_counts=True
    )
    _, per_row = np.unique(found.caption_rows, return_counts=True)
    figures: dict[str, Any] = {
        "captions": len(hashes),
        "distinct": len(first),
        "per_row": {
            "min": int(per_row.min()) if len(per_row) else 0,
            "max": int(per_row.max(initial=0)),
        },
        "default": found.without_caption,
    }
    often = [i for i in np.lexsort((first, -counts))[:SHOWN] if counts[i] > 1]
    figures["most_repeated"] = [
        {
            "caption": _beginning(caption),
            "times": int(counts[i]),
            "row": int(found.caption_rows[first[i]]),
        }
        for i, caption in zip(often, found.texts(first[often]))
    ]
    figures["lengths"] = _lengths(found, first, inverse, lengths, tell)
    return figures


def _lengths(
    found: Findings,
    first: np.ndarray,
    inverse: np.ndarray,
    lengths: Sequence[Length],
    tell: Tell | None,
) -> list[dict[str, Any]]:
    """Each distinct caption is measured once; figures are those of all captions."""
    import numpy as np

    measured = np.zeros((len(lengths), len(first)), np.int64)
    texts = found.texts(first)
    if tell is not None:
        tell("measuring captions", "caption", 0, len(first))
    for start in range(0, len(first), _TOGETHER):
        captions = list(islice(texts, _TOGETHER))
        for number, length in enumerate(lengths):
            measured[number, start : start + len(captions)] = length.count(captions)
        if tell is not None:
            tell("measuring captions", "caption", start + len(captions), len(first))
    figures = []
    for length, of_distinct in zip(lengths, measured):
        if not len(inverse):
            continue
        values = of_distinct[inverse]
        entry: dict[str, Any] = {
            "unit": length.unit,
            "min": int(values.min()),
            "median": int(np.median(values)),
            "p95": int(np.percentile(values, 95, method="higher")),
            "max": int(values.max()),
        }
        if length.limit is not None:
            cut = np.flatnonzero(values > length.limit)
            # The longest are shown, unless all are wanted.
            shown = cut if found.every else cut[np.argsort(-values[cut], kind="stable")[:SHOWN]]
            entry |= {
                "limit": length.limit,
                "limited_by": length.limited_by,
                "cut": len(cut),
                "cut_captions": [
                    {"row": int(found.caption_rows[i]), "length": int(values[i]), "caption": text}
                    for i, text in zip(shown, map(_beginning, found.texts(shown)))
                ],
            }
        figures.append(entry)
    return figures


def _beginning(caption: str) -> str:
    text = " ".join(caption[: 4 * _SHOWN_CHARACTERS].split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS].rstrip()} ..."


# -------------------------------------------------------------------------------------------


def _kinds(found: ByKind) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "count": count, "items": [_item(item) for item in found.items[kind]]}
        for kind, count in found.counts.items()
    ]


def _item(found: Found) -> dict[str, Any]:
    entry = {"row": found.row, "where": found.where, "text": found.text}
    entry |= {} if found.column is None else {"column": found.column}
    return entry | ({} if found.file is None else {"file": found.file})
