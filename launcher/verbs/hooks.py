"""`launcher hooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.arguments import add_plugin_options, new_parser, parse, refuse_rest
from launcher.choice import choose

if TYPE_CHECKING:
    from launcher.plugins import FunctionInfo, HookInfo


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
    rows = [(verb, _place(function, info.name)) for function in info.implementations]
    if info.kind == "owned" and info.owner is None:
        rows.append((verb, "none: a recipe must answer it"))
    rows += [("instead of", _place(function, info.name)) for function in info.shadowed]
    rows += [("wrapped by", _place(function, info.name)) for function in info.wrappers]
    return "\n".join([*lines, *(f"    {label:<13}{place}" for label, place in rows)])


def _place(function: FunctionInfo, hook: str) -> str:
    """Plugin, file and line, and the function where it is not called like the hook."""
    from launcher.plugin_checks import display_path

    place = f"{display_path(function.file)}:{function.line}"
    if not place.startswith(f"{function.plugin}:"):
        place = f"{function.plugin}  {place}"
    return place if function.function == hook else f"{place} ({function.function})"
