"""`launcher hooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.arguments import add_plugin_options, new_parser, parse, refuse_rest
from launcher.choice import choose

if TYPE_CHECKING:
    from launcher.plugins import HookInfo


def hooks(argv: list[str]) -> None:
    """show every hook of a recipe and the function that answers it"""
    parser = new_parser(
        "hooks",
        "launcher hooks [--recipe NAME] [-p PLUGIN] [--config FILE] [--json]",
        "Show every hook in call order: its arguments, who answers it and where. Without a recipe: "
        "the hooks with the launcher's own answers.",
        "launcher hooks --recipe flux_controlnet -p my_variant.py",
    )
    add_plugin_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    options, rest = parse(parser, argv)
    if options is None:
        return
    refuse_rest(parser, rest)

    from launcher.plugins import describe_defaults

    if options.recipe or options.config or options.plugin:
        plugins, _ = choose(options)
        infos = plugins.describe()
    else:
        infos = describe_defaults()
    if options.json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(info) for info in infos], indent=2))
    else:
        print("\n\n".join(_describe(info) for info in infos))


def _describe(info: HookInfo) -> str:
    """A hook as lines of text."""
    lines = [f"{info.name}({', '.join(info.arguments)})".ljust(56) + info.kind]
    lines.append(f"    {info.summary}")
    verb = {"owned": "owner", "merged": "answered by", "observed": "told"}[info.kind]
    rows = [(verb, function.place(info.name)) for function in info.implementations]
    if info.kind == "owned" and info.owner is None:
        rows.append((verb, "none: a recipe must answer it"))
    rows += [("instead of", function.place(info.name)) for function in info.shadowed]
    rows += [("wrapped by", function.place(info.name)) for function in info.wrappers]
    return "\n".join([*lines, *(f"    {label:<13}{place}" for label, place in rows)])
