"""Whether a run could be uploaded at its end: looked at before it begins, not hours later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from launcher.hub.errors import LOG_IN, reason
from launcher.rundir import expand
from launcher.sections import HubSection
from launcher.training.errors import UserError

#: Seconds for the hub to answer. A run does not wait longer for what it can do without.
_TIMEOUT = 10

_NAMES = (
    "give NAME or OWNER/NAME, of letters a to z, digits, `-`, `_` and `.`, at most 96 characters, "
    "without `--`, `..`, `-` or `.` at either end, or `.git` at the end."
)


def model_id(section: HubSection, output_dir: str) -> str:
    """The repository's name: NAME, of the token's owner, or OWNER/NAME.

    Raises:
        UserError: it cannot be one.
    """
    given = section.hub_model_id
    if given is not None:
        check_name(given, "hub.hub_model_id")
        return given
    name = expand(output_dir).name
    if not _is_name(name):
        raise UserError(
            f"the folder {output_dir!r} gives the repository the name {name!r}, which the Hugging "
            f"Face Hub does not take: {_NAMES} Set hub.hub_model_id (`launcher push`: --model-id)."
        )
    return name


def check_name(name: str, option: str) -> None:
    """Raise UserError if a repository cannot have the name that an option gives it."""
    if not _is_name(name):
        raise UserError(f"{option} is {name!r}, which the Hugging Face Hub does not take: {_NAMES}")


def _is_name(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.isascii()  # for huggingface_hub, letters are those of all languages


def problems(section: HubSection, output_dir: str) -> list[str]:
    """What keeps a run from being uploaded, as far as it shows without the network."""
    from huggingface_hub import constants, get_token

    if not section.push_to_hub:
        return []
    found = []
    try:
        model_id(section, output_dir)
    except UserError as error:
        found.append(str(error))
    except ValueError:  # no name of a folder at all, which is a problem of its own
        pass
    if constants.HF_HUB_OFFLINE:
        found.append(
            "hub.push_to_hub is true, and HF_HUB_OFFLINE forbids every upload. Unset it, or leave "
            "out push_to_hub and upload later by `launcher push`."
        )
    elif not get_token():
        found.append(
            "hub.push_to_hub is true, and there is no token for the Hugging Face Hub. "
            f"{LOG_IN}; or leave out push_to_hub and upload later by `launcher push`."
        )
    return found


def check(section: HubSection, output_dir: str, say: Callable[[str], object]) -> None:
    """Ask the hub whether it knows the token and would let it write.

    Args:
        say: told that the hub could not be asked.

    Raises:
        UserError: it would not.
    """
    if not section.push_to_hub:
        return
    name = model_id(section, output_dir)
    try:
        account = whoami()
    except OSError as error:
        if _status(error) in (401, 403):
            raise UserError(f"hub.push_to_hub is true, but {reason(error, name)}") from error
        say(f"the upload at the end could not be checked: {reason(error, name)} The run goes on")
        return
    _check_rights(account, name, say)
    if section.hub_private_repo:
        refuse_public(f"{account['name']}/{name}" if "/" not in name else name, say)


def whoami() -> dict[str, Any]:
    """Whose token it is, and what it may do.

    Raises:
        OSError: the hub cannot be reached, or refuses.
    """
    return _get("/api/whoami-v2")


def owner(say: Callable[[str], object]) -> str | None:
    """Whose token it is; None if that cannot be found out, which is said."""
    from huggingface_hub import get_token

    if not get_token():
        say("whose repository it would be is not known: there is no token")
        return None
    try:
        return str(whoami()["name"])
    except OSError as error:
        say(f"whose repository it would be is not known: {reason(error, '')}")
        return None


def refuse_public(name: str, say: Callable[[str], object] | None = None) -> None:
    """Raise UserError if a repository that is to be private exists and is public: asking for it
    would not change that.

    Args:
        name: OWNER/NAME.
        say: told that the hub could not be asked; None: that is raised.
    """
    try:
        about = _get(f"/api/models/{name}")
    except OSError as error:
        if _status(error) == 404 or (_status(error) == 401 and "/" in name):  # none, as yet
            return
        if say is None:
            raise
        say(f"whether {name} is private could not be checked: {reason(error, name)}")
        return
    if not about.get("private"):
        raise UserError(
            f"the repository {name} exists and is public, and an upload does not change that. "
            "Make it private in its settings on the hub, choose another name "
            "(hub.hub_model_id, or --model-id), or leave out hub_private_repo (--private)."
        )


def _check_rights(account: Mapping[str, Any], name: str, say: Callable[[str], object]) -> None:
    user = str(account["name"])
    role = (account.get("auth") or {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(
            f"hub.push_to_hub is true, but the token of {user} may only read. {LOG_IN}."
        )
    space = name.rpartition("/")[0]
    spaces = {user: "", **{o["name"]: o.get("roleInOrg", "") for o in account.get("orgs", [])}}
    if not space or (space in spaces and spaces[space] != "read"):
        return
    what = (
        f"hub.hub_model_id is {name!r}, and {user}, whose token it is, "
        + ("may only read there" if space in spaces else f"is no member of {space}")
        + f"; {user} can write to {', '.join(s for s, r in spaces.items() if r != 'read')}"
    )
    if role == "write":
        raise UserError(f"{what}. Choose one of them, or give the token of a member.")
    say(f"{what}, unless this token tells less than it may")


def _get(path: str) -> dict[str, Any]:
    """What the hub answers.

    Raises:
        OSError: it cannot be reached, or refuses.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    response = get_session().get(
        constants.ENDPOINT + path, headers=build_hf_headers(), timeout=_TIMEOUT
    )
    hf_raise_for_status(response)
    return dict(response.json())


def _status(error: OSError) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
