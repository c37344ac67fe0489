"""What goes wrong between this machine and the Hugging Face Hub, in words."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from launcher.training.errors import UserError

#: What huggingface_hub raises: its own errors and those of requests are OSErrors, what fails in
#: its threads or in hf_xet is a RuntimeError, and what the hub refuses may be a ValueError.
EXPECTED = (OSError, RuntimeError, ValueError)

LOG_IN = "Log in by `hf auth login`, or set HF_TOKEN, with a token that may write"


class UploadError(UserError):
    """The run is complete, and has not got to the hub."""


def reason(error: BaseException, model_id: str) -> str:
    """Why the hub could not be used, in a sentence or two.

    Neither tokens nor the signed addresses of uploads are in it.

    Args:
        error: one of `EXPECTED`.
        model_id: the repository.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled
    from requests import exceptions

    endpoint = constants.ENDPOINT
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, which forbids it. Unset it."
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return _of_status(status, str(getattr(link, "server_message", "") or ""), model_id)
    for link in chain:
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({link.filename})" if link.filename else ""
            return f"the disk is full{where}. Free some space."
    for link in chain:
        if isinstance(link, (exceptions.ConnectionError, exceptions.Timeout, ConnectionError)):
            return (
                f"{endpoint} could not be reached, or the connection broke off "
                f"({type(link).__name__}). Look at the network and its proxies (HTTPS_PROXY)."
            )
    last = chain[-1]
    return f"{type(last).__name__}: {_public(str(last))}."


def _of_status(status: int, said: str, model_id: str) -> str:
    server = f" The hub says: {_public(said)}." if said else ""
    if status == 401:
        return f"the hub does not accept the token.{server} {LOG_IN}."
    if status == 403:
        return (
            f"the token may not write to {model_id}.{server} It has to be one with the permission "
            "to write, of the owner of the repository or of a member of the organisation."
        )
    if status == 404:
        return (
            f"the hub has no repository {model_id}, or this token cannot see it.{server} Look at "
            "the name, and at whose token it is."
        )
    if status == 429:
        return f"the hub has had too many requests from here (429).{server} Wait some minutes."
    if status >= 500:
        return f"the hub has failed (error {status}).{server} Try again later."
    return f"the hub refuses it (error {status}).{server}"


def _public(text: str) -> str:
    """In one line, without tokens and the parameters of addresses."""
    text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", " ".join(text.split()))
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_...", text).rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came of, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
