"""The upload: a repository, made if there is none, and one commit with all files.

A commit is there whole or not at all. Large files are sent before it; those that have arrived are
not sent again when a broken upload is repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from launcher.hub.account import refuse_public
from launcher.hub.parcel import Item
from launcher.hub.waiting import in_thread


def upload(items: Sequence[Item], model_id: str, private: bool | None, message: str) -> str:
    """Upload files to a model repository.

    Args:
        items: the files.
        model_id: OWNER/NAME.
        private: for a repository that is made here; None: as its owner has it by default.
        message: of the commit.

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

    return in_thread(send)
