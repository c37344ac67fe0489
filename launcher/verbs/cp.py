"""`launcher cp`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from launcher.arguments import add_variant_option, new_parser, parse, refuse_rest
from launcher.training.errors import UserError


def cp(argv: list[str]) -> None:
    """write a commented configuration file to start from"""
    parser = new_parser(
        "cp",
        "launcher cp RECIPE FILE [-p PLUGIN]",
        "Write a configuration file to start from: every option of a recipe with what it does, "
        "what\nit takes and its default. Options that a run needs hold a placeholder. Nothing is "
        "written over.",
        "launcher cp flux_controlnet my_run.yaml",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="`launcher recipes` lists them")
    parser.add_argument(
        "file", metavar="FILE", help="the file to be written, or - to print what would be in it"
    )
    add_variant_option(
        parser,
        "a variant that the run will use: the file names it and has its options, too; repeatable",
    )
    options, rest = parse(parser, argv)
    if options is None:
        return
    refuse_rest(parser, rest)
    to_screen = options.file == "-"
    path = Path("my_run.yaml" if to_screen else options.file)
    _check_names(options.recipe, path)

    from launcher import config, plugins, quiet
    from launcher.sections import SECTIONS
    from launcher.starting_file import starting_file, write_new

    brought = plugins.recipe_configs(options.recipe)
    sources = [config.read_yaml(brought[name]) for name in brought if name == options.recipe]
    variants = [plugins.locate(variant) for variant in options.plugin]
    quiet.install(verbose=False)
    sections = plugins.load(options.recipe, variants).sections(SECTIONS)
    # What is trained on what comes first: that is what everyone has to fill in.
    sections = {**{k: v for k, v in sections.items() if k not in SECTIONS}, **SECTIONS}
    named = [_seen_from(variant, path.parent) for variant in variants]
    text = starting_file(_shell(path), options.recipe, named, sections, sources)
    if to_screen:
        print(text, end="")
        return
    write_new(path, text)
    print(
        f"{path}: fill in what is marked {config.PLACEHOLDER}, then\n\n"
        f"    launcher --config {_shell(path)} --dry-run"
    )


def _check_names(recipe: str, path: Path) -> None:
    """Refuse a file that could not be given as --config, and arguments in the wrong order."""
    from launcher.entry_points import RECIPES, offered

    recipes = offered(RECIPES)
    if recipe not in recipes and str(path) in recipes:
        raise UserError(f"the recipe comes first: `launcher cp {path} {recipe}`.")
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; name the file, too, as in "
            f"`launcher cp {recipe} {path / 'my_run.yaml'}`."
        )
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(
            f"a configuration file ends in .yaml: `launcher cp {recipe} {path.name}.yaml`."
        )


def _seen_from(variant: str, folder: Path) -> str:
    """A variant as a YAML file in the folder names it."""
    return os.path.relpath(variant, folder) if os.sep in variant else variant


def _shell(path: Path) -> str:
    return shlex.quote(str(path))
