"""Encodings that are found damaged while a run reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from launcher.training.errors import UserError

if TYPE_CHECKING:
    from launcher.training.cache import DamagedEntryError


class Mender:
    """Has each damaged encoding made anew, once in a run.

    Args:
        mend: makes the encoding of a key anew.
        say: shows the user a line.
    """

    def __init__(self, mend: Callable[[bytes], None], say: Callable[[str], object]) -> None:
        self._mend = mend
        self._say = say
        self._mended: set[bytes] = set()

    def __call__(self, error: DamagedEntryError) -> None:
        """Have it made anew.

        Raises:
            UserError: it had been already.
        """
        if error.key in self._mended:
            raise UserError(
                f"{error}, and had been made anew in this very run: the disk or the memory of this "
                "machine is at fault. Set data.cache_dir to another disk."
            ) from error
        self._say(f"{error}; it is made anew")
        self._mended.add(error.key)
        self._mend(error.key)
