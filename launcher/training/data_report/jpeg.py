"""Damage inside JPEG data, which decoders pass over in silence.

libjpeg makes something of anything: of 100 files with 200 bytes in their middle set to zero, Pillow
refuses none, and what it returns is grey or shifted from there on. libjpeg's warnings tell, and
OpenCV lets it write them to standard error, where they are caught here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.training.images import ImageSource

_START = b"\xff\xd8\xff"


class Warnings:
    """Catches what libjpeg says. While it does, nothing else must write to standard error.

    Attributes:
        is_possible: whether OpenCV is there.
    """

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError:
            self._cv2: Any = None
        else:
            self._cv2 = cv2
        self.is_possible = self._cv2 is not None

    def of(self, source: ImageSource) -> str | None:
        """What is wrong inside an image that decodes; None if nothing is, or if it is no JPEG."""
        if not self.is_possible or not isinstance(source, (str, os.PathLike, bytes)):
            return None
        if isinstance(source, bytes):
            content = source
        else:
            with open(source, "rb") as file:
                if file.read(len(_START)) != _START:
                    return None
            content = Path(source).read_bytes()
        if not content.startswith(_START):
            return None
        import numpy as np

        with _standard_error() as caught:
            # An eighth of the size: all data are decoded, but hardly any pixels are made.
            self._cv2.imdecode(
                np.frombuffer(content, np.uint8), self._cv2.IMREAD_REDUCED_GRAYSCALE_8
            )
        return "; ".join(dict.fromkeys(caught)) or None


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Collect the lines that the process, C libraries included, writes to standard error."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        lines += file.read().decode("utf-8", "replace").splitlines()
