"""Which recipe, which configuration files and which plugins a command line means."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from launcher.training.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.config import Resolved, Source
    from launcher.plugins import Plugins
    from launcher.trace import Trace


def configure(
    options: argparse.Namespace, settings: list[str], trace: Trace | None = None
) -> tuple[Plugins, Resolved]:
    """The plugins of a run, and its configuration.

    Args:
        settings: the `name=value` arguments.
    """
    from launcher.config import read_overrides, resolve
    from launcher.sections import SECTIONS

    overrides = read_overrides(settings)
    plugins, sources = choose(options, trace)
    return plugins, resolve(plugins.sections(SECTIONS), [*sources, overrides])


def choose(options: argparse.Namespace, trace: Trace | None = None) -> tuple[Plugins, list[Source]]:
    """The plugins, loaded and checked, and the YAML files, in order of precedence."""
    from pathlib import Path

    from launcher import config, plugins, quiet
    from launcher.entry_points import installed_recipes

    is_name = {text: _is_config_name(text) for text in options.config}
    given = {text: config.read_yaml(Path(text)) for text in options.config if not is_name[text]}
    recipe = options.recipe
    for source in given.values():
        recipe = options.recipe or source.recipe or recipe
    if not recipe:
        raise UserError(
            "no recipe is chosen: give `--recipe NAME`, or `recipe: NAME` in the YAML file. "
            f"{installed_recipes()} `launcher --help` explains the rest."
        )

    brought = plugins.recipe_configs(recipe)
    files = [brought[recipe]] if recipe in brought else []
    sources = [config.read_yaml(path) for path in files]
    for text in options.config:
        if is_name[text]:
            files.append(_named_config(text, recipe, brought))
            sources.append(config.read_yaml(files[-1]))
        else:
            files.append(Path(text))
            sources.append(given[text])

    variants = [
        plugins.locate(variant, file.resolve().parent)
        for file, source in zip(files, sources)
        for variant in source.plugins
    ]
    # A run that is continued may have it already, by its configuration.
    typed = [plugins.locate(variant) for variant in options.plugin]
    variants += [variant for variant in typed if variant not in variants]
    quiet.install(verbose=getattr(options, "verbose", False))
    return plugins.load(recipe, variants, trace), sources


def _is_config_name(text: str) -> bool:
    """True for `quickstart` and `precision/policy_b`: no suffix, not absolute, and not a file."""
    from pathlib import Path

    path = Path(text)
    is_path = path.is_absolute() or text.startswith((".", "~"))
    return not is_path and not path.suffix and not path.exists()


def _named_config(name: str, recipe: str, brought: dict[str, Path]) -> Path:
    from launcher.entry_points import near

    if name not in brought:
        raise UserError(
            f"there is no file `{name}`, and the recipe `{recipe}` brings no configuration of that "
            f"name{near(name, brought) or '.'} It brings: {', '.join(brought) or 'none'}. A file "
            "of your own is given by its path, as in `--config my_run.yaml`."
        )
    return brought[name]
