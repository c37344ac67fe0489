"""How the filling of a cache is seen from outside."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Is told what `fill` does."""

    def begin(self, kind: str, total: int) -> None:
        """`total` entries of a kind are missing. Not called if none are."""
        ...

    def at(self, what: str) -> None:
        """A batch is about to be encoded; `what` describes its first input."""
        ...

    def advance(self, count: int) -> None:
        """So many more of them are encoded."""
        ...


class Unwatched:
    """Nobody looks."""

    def begin(self, kind: str, total: int) -> None: ...

    def at(self, what: str) -> None: ...

    def advance(self, count: int) -> None: ...
