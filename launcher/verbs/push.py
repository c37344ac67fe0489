"""`launcher push`."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.arguments import new_parser, parse, refuse_rest


def push(argv: list[str]) -> None:
    """share a finished run on the Hugging Face Hub"""
    parser = new_parser(
        "push",
        "launcher push RUN [--model-id NAME] [--private] [--dry-run]",
        "Upload a finished run to the Hugging Face Hub: the exported weights, a model card that is "
        "written\nfrom the run's files, and its configuration, without paths of this machine. The "
        "repository is\nmade if it does not exist. The token is that of `hf auth login`, or "
        "HF_TOKEN. Can be repeated.",
        "launcher push runs/first --model-id my_name/my_controlnet",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--model-id",
        metavar="NAME",
        help="the repository, NAME or OWNER/NAME; default: hub.hub_model_id of the run, else the "
        "name of its folder",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make the repository a private one; default: hub.hub_private_repo of the run",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write the model card, list what would be uploaded, and upload nothing",
    )
    options, rest = parse(parser, argv)
    if options is None:
        return
    refuse_rest(parser, rest)

    import shlex

    from launcher.hub import account, finished
    from launcher.interrupt import leaving

    path = finished.find(options.run)
    if options.model_id is not None:
        account.check_name(options.model_id, "--model-id")
    again = shlex.join(["launcher", "push", *argv])
    with leaving("" if options.dry_run else f"nothing was uploaded. `{again}` does it"):
        _push(path, options)


def _push(path: Path, options: argparse.Namespace) -> None:
    from launcher.choice import configure
    from launcher.console import Console
    from launcher.hub import account, finished
    from launcher.hub import push as sharing
    from launcher.rundir import CONFIG

    run = finished.read(path)  # before plugins are loaded
    chosen = argparse.Namespace(recipe=None, config=[str(path / CONFIG)], plugin=[])
    plugins, resolved = configure(chosen, [])
    config, console = resolved.config, Console()
    section = sharing.with_arguments(config.hub, options.model_id, options.private)
    if not options.dry_run:
        sharing.push(plugins, config, section, path, console)
        return
    name = account.model_id(section, str(path))
    if "/" not in name:
        owner = account.owner(console.headline)
        name = name if owner is None else f"{owner}/{name}"
    items = sharing.pack(plugins, config, run, name, console)
    console.result(sharing.listing(items, name, section))
