"""Building models only to see how large they are: no weights are read, no file has to be there.

    with sizes_only.wanted() as notes:
        models = build_models(config, "train")   # cells whose parameters have shapes and dtypes
    print(*notes)                                # where the sizes come from, if not from the files

What loads weights asks `is_wanted` and leaves them out; what needs the configuration of a model
that is not on this machine takes that of a known one and says so with `note`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: What an option holds that a run needs and that was not given: a path, a name.
NOT_GIVEN = "(not given)"

_notes: ContextVar[list[str] | None] = ContextVar("sizes_only", default=None)


@contextmanager
def wanted() -> Iterator[list[str]]:
    """Within this, models are built for their sizes. Yields the notes, which grow meanwhile."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def is_wanted() -> bool:
    """Whether sizes are all that is asked for."""
    return _notes.get() is not None


def note(text: str) -> None:
    """Tell, once, where sizes come from. Only where `is_wanted`."""
    notes = _notes.get()
    assert notes is not None
    if text not in notes:
        notes.append(text)
