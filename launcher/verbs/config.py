"""`launcher config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.arguments import add_plugin_options, new_parser, parse, read_settings

if TYPE_CHECKING:
    from launcher.config import OptionInfo, Resolved
    from launcher.plugins import Plugins


def config(argv: list[str]) -> None:
    """show what each option is set to, and where"""
    parser = new_parser(
        "config",
        "launcher config --recipe NAME [--config FILE] [-p PLUGIN] [--json] [name=value ...]",
        "Show the configuration of a run: each option, its value, and where it is set. What is "
        "not at\nits default is marked. Options are checked as for a run; files are not looked "
        "for.",
        "launcher config --recipe flux_controlnet --config quickstart train.learning_rate=1e-4",
    )
    add_plugin_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)

    from launcher.choice import configure
    from launcher.config import list_options
    from launcher.sections import SECTIONS

    plugins, resolved = configure(options, settings)
    infos = list_options(plugins.sections(SECTIONS))
    print(_as_json(plugins, resolved, infos) if options.json else _table(plugins, resolved, infos))


def _as_json(plugins: Plugins, resolved: Resolved, infos: list[OptionInfo]) -> str:
    import json

    return json.dumps(
        {
            "recipe": plugins.recipe,
            "plugins": plugins.variants,
            "options": {
                f"{info.section}.{info.name}": {
                    "value": getattr(resolved.config[info.section], info.name),
                    "default": info.default,
                    "origin": resolved.origins[f"{info.section}.{info.name}"],
                }
                for info in infos
            },
        },
        indent=2,
    )


def _table(plugins: Plugins, resolved: Resolved, infos: list[OptionInfo]) -> str:
    """Three columns; a star in front of what is set somewhere."""
    from launcher.config import as_yaml
    from launcher.plugin_checks import display_path

    values = [as_yaml(getattr(resolved.config[info.section], info.name)) for info in infos]
    name_width = max(len(info.name) for info in infos)
    value_width = min(max(map(len, values)), 48)
    lines = [f"recipe   {plugins.recipe}"]
    lines += [f"plugin   {display_path(variant)}" for variant in plugins.variants]
    section = None
    for info, value in zip(infos, values):
        if info.section != section:
            section = info.section
            lines += ["", section]
        origin = resolved.origins[f"{section}.{info.name}"]
        is_set = origin != "default"
        if is_set:
            file, colon, line = origin.rpartition(":")
            origin = f"{display_path(file)}{colon}{line}" if colon else origin
            if not info.is_required:
                origin += f"  (default: {as_yaml(info.default)})"
        row = f"{info.name:<{name_width}}  {value:<{value_width}}  {origin}"
        lines.append(_emphasised(f"  * {row}") if is_set else f"    {row}")
    return "\n".join(lines)


def _emphasised(line: str) -> str:
    import os
    import sys

    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ
    return line if plain else f"\033[1m{line}\033[0m"
