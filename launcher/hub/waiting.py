"""Waiting for the hub."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")

#: Where huggingface_hub repeats what has failed.
_RETRIES = "huggingface_hub.utils._http"


def in_thread(function: Callable[[], _T]) -> _T:
    """Call a function so that signals are heard meanwhile. Python handles them in the main thread,
    which huggingface_hub and hf_xet hold for as long as a file takes."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised in the main thread
            errors.append(error)

    thread = threading.Thread(target=call, name="hub", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def retries(say: Callable[[str], object]) -> Iterator[None]:
    """Say once that something is tried again, in place of huggingface_hub's warnings: the addresses
    in them are signed, and whoever has one can write there."""
    is_said = False

    def keep(record: logging.LogRecord) -> bool:
        nonlocal is_said
        if record.levelno == logging.WARNING and not is_said:
            is_said = True
            say("the hub does not take a file at once; trying again")
        return False

    logger = logging.getLogger(_RETRIES)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
