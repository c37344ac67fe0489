"""The command line: one verb, one function, one name.

    launcher --recipe flux_controlnet --config quickstart

Importing this module imports nothing heavy, and neither do the verbs that only list.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from launcher.arguments import add_run_options, new_parser, stray_hint
from launcher.training.errors import UserError
from launcher.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the arguments after the program's name; default: those of this process.

    Returns:
        The exit code: 0, 1 for a plugin that fails at import, 2 for a mistake of the user, 3 for a
        run that is complete and was not uploaded, 130 after Ctrl-C, 143 after SIGTERM, 141 if the
        reader of the output has gone. Bugs are raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    try:
        verb, rest = _split_verb(arguments)
        verb(rest)
        sys.stdout.flush()
    except UserError as error:
        from launcher.hub.errors import UploadError

        _print_error(str(error))
        return 3 if isinstance(error, UploadError) else 2
    except KeyboardInterrupt as error:
        import signal

        from launcher.interrupt import Interrupted, say_interrupted

        if not isinstance(error, Interrupted):
            error = Interrupted(signal.SIGINT)
        say_interrupted(error.saved)
        return 128 + error.signal
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return 141
    except Exception as error:
        from launcher.child import AlreadyReported
        from launcher.plugins import PluginImportError

        if isinstance(error, AlreadyReported):
            return error.exit_code
        if not isinstance(error, PluginImportError):
            raise
        _print_error(f"{error}:")
        _print_traceback(error.__cause__)
        return 1
    return 0


def _split_verb(arguments: list[str]) -> tuple[Callable[[list[str]], None], list[str]]:
    first = arguments[0] if arguments else ""
    if first in VERBS:
        return VERBS[first], arguments[1:]
    if first in ("-h", "--help"):
        return _help, []
    if not arguments or first.startswith("-") or "=" in first:
        return VERBS["run"], arguments

    from launcher.entry_points import near

    hint = near(first, VERBS)
    if not hint:
        hint = stray_hint(first)
    raise UserError(
        f"there is no verb `{first}`{hint or '.'} The verbs are {', '.join(VERBS)}; "
        "`launcher --help` explains them."
    )


def _help(_: list[str]) -> None:
    parser = new_parser(
        None,
        "launcher [run] --recipe NAME [options] [name=value ...]\n       launcher VERB ...",
        "Train with a recipe. Settings are given as name=value, as in train.learning_rate=1e-5,\n"
        "or the last part alone where only one section has it. They win over YAML files, which\n"
        "win over the recipe's defaults.",
        "launcher --recipe flux_controlnet --config quickstart train.max_train_steps=100",
    )
    add_run_options(parser)
    verbs = "\n".join(f"  {name:<10} {function.__doc__}" for name, function in VERBS.items())
    parser.epilog = f"verbs (`launcher VERB --help`):\n{verbs}\n\n{parser.epilog}"
    parser.print_help()


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


def _open_closed_streams() -> None:
    """Let output go nowhere if the process was started without (`>&-`, some daemons).

    Python has None for such a stream, and the next file that is opened gets its number: what
    MindSpore writes to standard error would end up in `metrics.jsonl`.
    """
    import os

    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


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
