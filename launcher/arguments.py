"""The arguments of the command line: options with dashes, settings as name=value.

What other scripts take and this one does not is answered with what to write instead.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from launcher.training.errors import UserError

DISTRIBUTION = "flux-controlnet-plugin"


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. `{self.prog} --help` shows the options.")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        try:
            version = importlib.metadata.version(DISTRIBUTION)
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"launcher {version} ({DISTRIBUTION})")
        parser.exit()


def new_parser(verb: str | None, usage: str, description: str, example: str) -> _Parser:
    return _Parser(
        prog="launcher" if verb is None else f"launcher {verb}",
        usage=usage,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_variant_option(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument(
        "-p", "--plugin", metavar="PLUGIN", action="append", default=[], help=help_text
    )


def add_plugin_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", metavar="NAME", help="the recipe; `launcher recipes` lists them"
    )
    add_variant_option(
        parser, "a variant: a Python file, or the name of an installed one; repeatable"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="a YAML file, or the name of one that the recipe brings (quickstart); repeatable, "
        "later ones win",
    )


def add_run_options(parser: argparse.ArgumentParser, dry_run: bool = True) -> None:
    add_plugin_options(parser)
    if dry_run:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="check everything up to the weights, say what the run would be, and write nothing",
        )
        parser.add_argument(
            "--resume",
            metavar="latest|FOLDER",
            help="go on from the newest checkpoint in train.output_dir, or from a run or a "
            "checkpoint; its own configuration is used where none is given",
        )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="show each hook call as it happens: who answers it, where, how long it takes",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show the messages of MindSpore and MindONE, too",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")


def parse(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace | None, list[str]]:
    """Options, and the arguments that are none. No options: help or version was printed."""
    try:
        return parser.parse_known_args(argv)
    except SystemExit:
        return None, []


def read_settings(parser: argparse.ArgumentParser, rest: list[str]) -> list[str]:
    """The `name=value` arguments; UserError if there are others."""
    import shlex

    settings: list[str] = []
    unknown: list[tuple[str, str]] = []  # as written, as it should be
    arguments = [argument for argument in rest if argument != "--"]
    while arguments:
        argument = arguments.pop(0)
        if argument.startswith("-"):
            name, has_value, value = argument.partition("=")
            values = [value] if has_value else []
            while not has_value and arguments and _is_value(arguments[0]):
                values.append(arguments.pop(0))
            _refuse_near_option(parser, name)
            if len(name) < 3:
                parser.error(f"there is no option `{name}`")
            written = [argument] if has_value else [argument, *values]
            unknown.append((shlex.join(written), _as_setting(name, values)))
        elif _is_setting(argument, arguments):
            settings.append(argument)
        else:
            raise UserError(_stray(argument, arguments))
    if unknown:
        written_all, mended = (" ".join(texts) for texts in zip(*unknown))
        raise UserError(
            f"settings are given as name=value, without dashes: instead of `{written_all}` write "
            f"`{mended}`. `launcher --help` shows the options that do have dashes."
        )
    return settings


def _stray(argument: str, following: list[str]) -> str:
    """What to say of an argument that is neither an option nor `name=value`."""
    hint = stray_hint(argument)
    name = argument.strip("=")
    values = [text.strip("=") for text in following[:2] if text.startswith("=") or _is_value(text)]
    if not hint and name and any(values):
        hint = f"; did you mean `{_as_setting(name, [*filter(None, values)][:1])}`?"
    return (
        f"`{argument}` is neither an option nor a setting{hint or '.'} Settings are given as "
        "name=value, without spaces around the `=`, as in train.learning_rate=1e-5."
    )


def refuse_rest(parser: argparse.ArgumentParser, rest: list[str]) -> None:
    """For verbs that take no settings."""
    if rest:
        _refuse_near_option(parser, rest[0].partition("=")[0])
        raise UserError(
            f"`{parser.prog}` does not take `{rest[0]}`; `{parser.prog} --help` says what it takes."
        )


def _refuse_near_option(parser: argparse.ArgumentParser, name: str) -> None:
    from launcher.entry_points import near

    known = [option for option in parser._option_string_actions if option.startswith("--")]
    # Close indeed: `--revision` is a setting of other scripts and no misspelt `--version`.
    if name.startswith("-") and (hint := near(name, known, cutoff=0.85)):
        raise UserError(
            f"there is no option `{name}`{hint} `{parser.prog} --help` shows the options."
        )


def _is_setting(argument: str, following: list[str]) -> bool:
    """True for `name=value` and for `name=`, but not for the beginning of `name= value`."""
    name, has_value, value = argument.partition("=")
    return bool(name and has_value and (value or not following or not _is_value(following[0])))


def _is_value(argument: str) -> bool:
    """True for what can be the value of the option before it: no option, no setting."""
    if argument.startswith("-"):
        return argument[1:2].isdigit() or argument[1:2] == "."
    return "=" not in argument


def _as_setting(name: str, values: list[str]) -> str:
    import shlex

    key = name.lstrip("-").replace("-", "_")
    value = values[0] if len(values) == 1 else f"[{', '.join(values)}]" if values else "true"
    return shlex.quote(f"{key}={value}")


def stray_hint(argument: str) -> str:
    """What a lone word was probably meant as."""
    from launcher.entry_points import RECIPES, offered
    from launcher.verbs import VERBS

    if argument in VERBS:
        return f"; the verb comes first: `launcher {argument} ...`"
    if argument.endswith(".py"):
        return f"; did you mean `-p {argument}`?"
    if argument.endswith((".yaml", ".yml")):
        return f"; did you mean `--config {argument}`?"
    if argument in offered(RECIPES):
        return f"; did you mean `--recipe {argument}`?"
    return ""
