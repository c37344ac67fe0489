"""A finished run, to the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.hub import account, card, finished, parcel, paths
from launcher.hub.errors import EXPECTED, LOG_IN, UploadError, reason
from launcher.hub.upload import upload
from launcher.hub.waiting import in_thread, retries
from launcher.interrupt import leaving
from launcher.training.errors import UserError
from launcher.training.sizes import size_text

if TYPE_CHECKING:
    from hooks.types import Config
    from launcher.console import Console
    from launcher.plugins import Plugins
    from launcher.sections import HubSection


def rehearse(plugins: Plugins, config: Config, console: Console) -> None:
    """Find out before a run what would keep it from being uploaded at its end.

    Raises:
        UserError: something would.
    """
    section, output_dir = config.hub, config.train.output_dir
    if not section.push_to_hub:
        return
    account.check(section, output_dir, console.headline)
    settled = paths.settled(config, paths.local_options(config), Path.cwd())
    plugins.hook.describe_model(config=settled, model_id=account.model_id(section, output_dir))


def after_run(plugins: Plugins, config: Config, path: Path, console: Console) -> None:
    """Upload a run that has just ended, if it is asked for.

    Raises:
        UploadError: it could not be.
    """
    if not config.hub.push_to_hub:
        return
    try:
        push(plugins, config, config.hub, path, console)
    except UploadError:
        raise
    except UserError as error:
        again = command(path, config.hub)
        raise UploadError(
            f"the run in {path} is complete, but was not uploaded: {error} `{again}` uploads it."
        ) from error


def push(
    plugins: Plugins, config: Config, section: HubSection, path: Path, console: Console
) -> None:
    """Write the model card and upload the run.

    Args:
        config: the run's.
        section: where to.
        path: the run's folder.

    Raises:
        UserError: the run, or what is asked for, is not fit for it.
        UploadError: the hub could not be reached, or refused.
    """
    run = finished.read(path)
    again = command(path, section)
    saved = f"the run in {path} is complete, and not uploaded. `{again}` uploads it"
    with leaving(saved), retries(console.headline):
        name = account.model_id(section, str(path))
        _require_token(again)
        if "/" not in name:
            with _told(path, name, again):
                name = f"{in_thread(account.whoami)['name']}/{name}"
        items = pack(plugins, config, run, name, console)
        size = size_text(sum(item.size for item in items))
        console.headline(f"uploading {len(items)} files ({size}) to {name}")
        with _told(path, name, again):
            url = upload(
                items, name, section.hub_private_repo, f"{plugins.recipe}, {run.step} steps"
            )
    console.result(url)


@contextmanager
def _told(path: Path, name: str, again: str) -> Iterator[None]:
    """Around what needs the hub: an error says what has become of the run."""
    try:
        yield
    except EXPECTED as error:
        raise UploadError(
            f"the run in {path} is complete, but was not uploaded to {name}: "
            f"{reason(error, name)} `{again}` uploads it; nothing of the run is lost."
        ) from error


def pack(
    plugins: Plugins, config: Config, run: finished.FinishedRun, name: str, console: Console
) -> list[parcel.Item]:
    """Look at the weights, write the model card, and collect what is uploaded.

    Raises:
        UserError: the weights are damaged, or the card cannot be written.
    """
    finished.verify(run)
    noted = run.provenance
    folder = Path(noted.get("working_directory", run.path))
    config = paths.settled(config, noted.get("local_options"), folder)
    description = plugins.hook.describe_model(config=config, model_id=name)
    path = run.path / card.CARD
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, and the model card is a file of that name. Move it away."
        )
    try:
        if not card.write(run, plugins, config, description, name):
            console.headline(f"{path} is not the launcher's, and stays as it is")
        return parcel.items(run, config)
    except OSError as error:
        raise UserError(
            f"the model card {path} could not be written: {error.strerror or error}. Make room, or "
            "make the folder writable."
        ) from error


def command(path: Path, section: HubSection) -> str:
    """What uploads the run again."""
    words = ["launcher", "push", str(path)]
    if section.hub_model_id is not None:
        words += ["--model-id", section.hub_model_id]
    if section.hub_private_repo:
        words.append("--private")
    return shlex.join(words)


def with_arguments(section: HubSection, model_id: str | None, private: bool) -> HubSection:
    """The run's own options, where the command line says nothing else."""
    changes: dict[str, object] = {}
    if model_id is not None:
        changes["hub_model_id"] = model_id
    if private:
        changes["hub_private_repo"] = True
    return dataclasses.replace(section, **changes)  # type: ignore[arg-type]


def _require_token(again: str) -> None:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"HF_HUB_OFFLINE is set, which forbids every upload. Unset it, then `{again}`."
        )
    if not get_token():
        raise UserError(f"there is no token for the Hugging Face Hub. {LOG_IN}, then `{again}`.")


def listing(items: list[parcel.Item], name: str, section: HubSection) -> str:
    """What would be uploaded, and where to."""
    width = max(len(item.name) for item in items)
    kind = {True: "private", False: "public", None: "private or public as its owner has it"}
    return "\n".join(
        [
            f"to {name}; if it does not exist, {kind[section.hub_private_repo]}:",
            *(f"  {item.name:<{width}}  {size_text(item.size)}" for item in items),
            "Nothing was uploaded.",
        ]
    )
