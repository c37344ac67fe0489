"""A folder of images, and nothing else, as a table with the one column `image`.

table = open_image_folder("my_dog")
ImageTextTable(table, caption_column=None, default_caption="a photo of sks dog")
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from launcher.training.errors import UserError

#: What may lie beside images. Everything else counts as an image: one that cannot be read is
#: found by `ImageTextTable.check` and not left out unseen.
_NOT_IMAGES = (".txt", ".caption", ".csv", ".json", ".jsonl", ".md", ".yaml", ".yml")


class ImageFolder:
    """The files of a folder, sorted by name; see `launcher.training.tables.Table`."""

    columns = ("image",)

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self.label = str(folder)
        self.folder = folder
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def get(self, row: int, column: str) -> str:
        """The file's name."""
        return self._files[row]

    def where(self, row: int) -> str:
        """For example "image 2 (dog.png)"."""
        return f"image {row} ({self._files[row]})"


def image_files(folder: Path) -> list[str]:
    """Names of the images in a folder, sorted; hidden files and subfolders are none."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_file()
        and not entry.name.startswith(".")
        and entry.suffix.lower() not in _NOT_IMAGES
    )


def open_image_folder(path: str, option: str, limit: int | None = None) -> ImageFolder:
    """Open a folder of images.

    Args:
        path: the folder.
        option: the name of the option that it comes from, for messages.
        limit: keep only the first images.

    Raises:
        UserError: no such folder, or no image in it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        near: list[str] = []
        if folder.parent.is_dir():
            names = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()]
            near = difflib.get_close_matches(folder.name, names, n=1)
        guess = f" Did you mean {str(folder.parent / near[0])!r}?" if near else ""
        raise UserError(f"{option} is {path!r}, which is {what}. Give a folder of images.{guess}")
    files = image_files(folder)
    if not files:
        inner = sorted(p.name for p in folder.iterdir() if p.is_dir() and image_files(p))
        hint = f" Its subfolder {inner[0]!r} has some." if inner else ""
        raise UserError(f"{option} is {path!r}, a folder without images.{hint}")
    return ImageFolder(folder, files[:limit])
