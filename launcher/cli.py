"""The command line: one verb, one function, one name.

    launcher --recipe flux_controlnet --config quickstart

Importing this module imports nothing heavy, and neither do the verbs that only list.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from launcher.training.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from launcher.config import Source
    from launcher.plugins import FunctionInfo, HookInfo, Plugins

DISTRIBUTION = "flux-controlnet-plugin"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the arguments after the program's name; default: those of this process.

    Returns:
        The exit code: 0, 1 for a plugin that fails at import, 2 for a mistake of the user, 130
        after Ctrl-C, 141 if the reader of the output has gone. Bugs are raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        verb, rest = _split_verb(arguments)
        verb(rest)
        sys.stdout.flush()
    except UserError as error:
        _print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print("launcher: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return 141
    except Exception as error:
        from launcher.plugins import PluginImportError

        if not isinstance(error, PluginImportError):
            raise
        _print_error(f"{error}:")
        _print_traceback(error.__cause__)
        return 1
    return 0


# -------------------------------------------------------------------------------------------
# Verbs
# -------------------------------------------------------------------------------------------


def run(argv: list[str]) -> None:
    """train; the default when no verb is given"""
    parser = _parser(
        "run",
        "launcher [run] --recipe NAME [options] [name=value ...]",
        "Train with a recipe.",
        "launcher --recipe flux_controlnet --config quickstart train.max_train_steps=100",
    )
    _add_run_options(parser)
    options, rest = _parse(parser, argv)
    if options is None:
        return
    settings = _settings(parser, rest)

    from launcher import config

    overrides = config.read_overrides(settings)
    plugins, sources = _choose(options)

    from launcher.sections import SECTIONS

    resolved = config.resolve(plugins.sections(SECTIONS), [*sources, overrides])

    from launcher import pipeline
    from launcher.console import Console

    pipeline.run(plugins, resolved, argv, Console())


def recipes(argv: list[str]) -> None:
    """list the installed recipes"""
    parser = _parser(
        "recipes",
        "launcher recipes",
        "List the installed recipes, without importing them.",
        "launcher recipes",
    )
    options, rest = _parse(parser, argv)
    if options is None:
        return
    _refuse(parser, rest)

    from launcher.entry_points import installed_recipes, list_recipes

    infos = list_recipes()
    if not infos:
        print(installed_recipes([]))
        return
    rows = [(i.name, f"{i.distribution} {i.version}", i.summary) for i in infos]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for info, (name, distribution, summary) in zip(infos, rows):
        print(f"{name:<{widths[0]}}  {distribution:<{widths[1]}}  {summary}".rstrip())
        if info.error:
            print(f"    cannot be used: {info.error}")


def hooks(argv: list[str]) -> None:
    """show every hook of a recipe and the function that answers it"""
    parser = _parser(
        "hooks",
        "launcher hooks [--recipe NAME] [-p PLUGIN] [--config FILE] [--json]",
        "Show every hook in call order: its arguments, who answers it and where. Without a recipe: "
        "the hooks with the launcher's own answers.",
        "launcher hooks --recipe flux_controlnet -p my_variant.py",
    )
    _add_plugin_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    options, rest = _parse(parser, argv)
    if options is None:
        return
    _refuse(parser, rest)

    from launcher.plugins import describe_defaults

    if options.recipe or options.config or options.plugin:
        plugins, _ = _choose(options)
        infos = plugins.describe()
    else:
        infos = describe_defaults()
    if options.json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(info) for info in infos], indent=2))
    else:
        print("\n\n".join(_describe(info) for info in infos))


VERBS: dict[str, Callable[[list[str]], None]] = {"run": run, "recipes": recipes, "hooks": hooks}


# -------------------------------------------------------------------------------------------
# Which recipe, which files, which plugins
# -------------------------------------------------------------------------------------------


def _choose(options: argparse.Namespace) -> tuple[Plugins, list[Source]]:
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
    variants += [plugins.locate(variant) for variant in options.plugin]
    quiet.install(verbose=getattr(options, "verbose", False))
    return plugins.load(recipe, variants), sources


def _is_config_name(text: str) -> bool:
    """True for `quickstart`: no path, no suffix, and not a file."""
    from pathlib import Path

    path = Path(text)
    return path.name == text and not path.suffix and not path.is_file()


def _named_config(name: str, recipe: str, brought: dict[str, Path]) -> Path:
    from launcher.entry_points import near

    if name not in brought:
        raise UserError(
            f"there is no file `{name}`, and the recipe `{recipe}` brings no configuration of that "
            f"name{near(name, brought) or '.'} It brings: {', '.join(brought) or 'none'}. A file "
            "of your own is given by its path, as in `--config my_run.yaml`."
        )
    return brought[name]


# -------------------------------------------------------------------------------------------
# Arguments
# -------------------------------------------------------------------------------------------


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


def _parser(verb: str | None, usage: str, description: str, example: str) -> _Parser:
    return _Parser(
        prog="launcher" if verb is None else f"launcher {verb}",
        usage=usage,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_plugin_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", metavar="NAME", help="the recipe; `launcher recipes` lists them"
    )
    parser.add_argument(
        "-p",
        "--plugin",
        metavar="PLUGIN",
        action="append",
        default=[],
        help="a variant: a Python file, or the name of an installed one; repeatable",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="a YAML file, or the name of one that the recipe brings (quickstart); repeatable, "
        "later ones win",
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    _add_plugin_options(parser)
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show the messages of MindSpore and MindONE, too",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")


def _split_verb(arguments: list[str]) -> tuple[Callable[[list[str]], None], list[str]]:
    first = arguments[0] if arguments else ""
    if first in VERBS:
        return VERBS[first], arguments[1:]
    if first in ("-h", "--help"):
        return _help, []
    if not arguments or first.startswith("-") or "=" in first:
        return run, arguments

    from launcher.entry_points import near

    hint = near(first, VERBS)
    if not hint:
        hint = _stray_hint(first)
    raise UserError(
        f"there is no verb `{first}`{hint or '.'} The verbs are {', '.join(VERBS)}; "
        "`launcher --help` explains them."
    )


def _help(_: list[str]) -> None:
    parser = _parser(
        None,
        "launcher [run] --recipe NAME [options] [name=value ...]\n"
        "       launcher recipes\n"
        "       launcher hooks [--recipe NAME] [-p PLUGIN] [--json]",
        "Train with a recipe. Settings are given as name=value, as in train.learning_rate=1e-5,\n"
        "or the last part alone where only one section has it. They win over YAML files, which\n"
        "win over the recipe's defaults.",
        "launcher --recipe flux_controlnet --config quickstart train.max_train_steps=100",
    )
    _add_run_options(parser)
    verbs = "\n".join(f"  {name:<9} {function.__doc__}" for name, function in VERBS.items())
    parser.epilog = f"verbs (`launcher VERB --help`):\n{verbs}\n\n{parser.epilog}"
    parser.print_help()


def _parse(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace | None, list[str]]:
    """Options, and the arguments that are none. No options: help or version was printed."""
    try:
        return parser.parse_known_args(argv)
    except SystemExit:
        return None, []


def _settings(parser: argparse.ArgumentParser, rest: list[str]) -> list[str]:
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
    hint = _stray_hint(argument)
    name = argument.strip("=")
    values = [text.strip("=") for text in following[:2] if text.startswith("=") or _is_value(text)]
    if not hint and name and any(values):
        hint = f"; did you mean `{_as_setting(name, [*filter(None, values)][:1])}`?"
    return (
        f"`{argument}` is neither an option nor a setting{hint or '.'} Settings are given as "
        "name=value, without spaces around the `=`, as in train.learning_rate=1e-5."
    )


def _refuse(parser: argparse.ArgumentParser, rest: list[str]) -> None:
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


def _stray_hint(argument: str) -> str:
    """What a lone word was probably meant as."""
    from launcher.entry_points import RECIPES, offered

    if argument in VERBS:
        return f"; the verb comes first: `launcher {argument} ...`"
    if argument.endswith(".py"):
        return f"; did you mean `-p {argument}`?"
    if argument.endswith((".yaml", ".yml")):
        return f"; did you mean `--config {argument}`?"
    if argument in offered(RECIPES):
        return f"; did you mean `--recipe {argument}`?"
    return ""


# -------------------------------------------------------------------------------------------
# Output
# -------------------------------------------------------------------------------------------


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


def _print_error(message: str) -> None:
    text = f"launcher: error: {message}"
    if sys.stderr.isatty():
        import shutil

        text = _wrapped(text, max(shutil.get_terminal_size().columns, 40))
    print(text, file=sys.stderr)


def _wrapped(text: str, width: int) -> str:
    """Each line by itself; what is indented is code and stays as it is."""
    import textwrap

    lines = []
    for line in text.splitlines():
        if line.startswith("    "):
            lines.append(line)
        else:
            hanging = "  " if line.startswith("- ") else ""
            lines += textwrap.wrap(
                line,
                width,
                subsequent_indent=hanging,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]
    return "\n".join(lines)


def _print_traceback(error: BaseException | None) -> None:
    import traceback

    if error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)


def _output_is_closed() -> bool:
    """True if nobody reads standard output any more. It then goes nowhere, so that the
    interpreter can flush it at exit without a second error.
    """
    import os
    import select

    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed
