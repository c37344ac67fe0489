"""The upload: a repository, made if there is none, and one commit with all files.

A commit is there whole or not at all. Large files are sent before it; those that have arrived are
not sent again when a broken upload is repeated.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from launcher.hub.account import refuse_public
from launcher.hub.parcel import Item
from launcher.interrupt import leaving

_T = TypeVar("_T")


def upload(
    items: Sequence[Item], model_id: str, private: bool | None, message: str, if_interrupted: str
) -> str:
    """Upload files to a model repository.

    Args:
        items: the files.
        model_id: OWNER/NAME.
        private: for a repository that is made here; None: as its owner has it by default.
        message: of the commit.
        if_interrupted: what SIGINT and SIGTERM leave behind, see `launcher.interrupt.leaving`.

    Returns:
        The repository's address.

    Raises:
        UserError: it is to be private, exists and is public.
        OSError, RuntimeError, ValueError: see `launcher.hub.errors.reason`.
    """

    def send() -> str:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.utils import disable_progress_bars

        if not sys.stderr.isatty():  # hf_xet's are drawn into log files, too
            disable_progress_bars()
        api = HfApi()
        if private:
            refuse_public(model_id)
        repository = api.create_repo(model_id, private=private, exist_ok=True)
        api.create_commit(
            repository.repo_id,
            [
                CommitOperationAdd(
                    item.name,
                    item.content if isinstance(item.content, bytes) else str(item.content),
                )
                for item in items
            ],
            commit_message=message,
        )
        return str(repository)

    with leaving(if_interrupted):
        return _in_thread(send)


def _in_thread(function: Callable[[], _T]) -> _T:
    """Call a function so that signals are heard meanwhile. Python handles them in the main thread,
    which huggingface_hub and hf_xet hold for as long as a file takes."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised in the main thread
            errors.append(error)

    thread = threading.Thread(target=call, name="upload", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if errors:
        raise errors[0]
    return results[0]
