"""Writing a folder, or a file, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder(target: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Fill a folder beside `target`, then put it in place by renaming.

        with atomic.folder("checkpoint-500") as work:
            (work / "state.json").write_text(...)

    At the end of the block everything is synced to disk and renamed; if the block raises, or
    the process is killed, `target` is as it was. Leftovers of a killed process
    (`.NAME.partial`) are removed by the next call. Only one process may write a given target.

    Args:
        target: the folder to make; its parent must exist.
        replace: put the new folder in the place of an existing one. The old one is moved aside
            (`.NAME.old`) and deleted only when the new one stands, so a kill at any moment
            leaves one of them whole; if it falls between the two renames, the next call puts
            the old one back.

    Raises:
        FileExistsError: `target` exists and `replace` is False.
    """
    target = Path(os.path.abspath(target))
    work = target.with_name(f".{target.name}.partial")
    old = target.with_name(f".{target.name}.old")
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, target)
    if not replace and os.path.lexists(target):
        raise FileExistsError(f"{target} already exists")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        _sync_tree(work)
        if os.path.lexists(target):
            os.rename(target, old)
        os.rename(work, target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        if old.exists() and not os.path.lexists(target):
            os.rename(old, target)
        raise
    if old.exists():
        shutil.rmtree(old)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Put a small file in place, of those that several processes may write at once: the last one
    stays.

    Args:
        durable: what is there after a power cut is one of them, not a file without content.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        if durable:
            sync(partial)
        os.replace(partial, path)
        if durable:
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_tree(root: Path) -> None:
    for directory, _, files in os.walk(root):
        for name in files:
            sync(Path(directory, name))
        sync(Path(directory))


def sync(path: str | os.PathLike[str]) -> None:
    """Make durable what was written to a file, or renamed and removed in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
