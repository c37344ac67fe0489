"""`launcher data check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.arguments import add_plugin_options, new_parser, parse, read_settings
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from launcher.console import Console, Progress
    from launcher.plugins import FunctionInfo, Plugins

_USAGE = (
    "launcher data check --recipe NAME [--config FILE] [-p PLUGIN] [--full] [--json] "
    "[name=value ...]"
)


def data(argv: list[str]) -> None:
    """look at the data set without any model: `launcher data check`"""
    action, *arguments = argv or ["--help"]
    if action == "check":
        check(arguments)
    elif action in ("-h", "--help"):
        check(["--help"])
    else:
        words = "is one word too few" if action.startswith("-") or "=" in action else "has no"
        wrong = f"`launcher data` {words}" + ("" if words[0] == "i" else f" `{action}`")
        raise UserError(f"{wrong}; write `launcher data check ...`.")


def check(argv: list[str]) -> None:
    """Look at every row, print what was found; UserError if rows cannot be used."""
    parser = new_parser(
        "data check",
        _USAGE,
        "Look at every row of the data set, without any model: counts, sizes, aspect ratios, "
        "captions\nand their lengths in tokens, images that are missing or damaged, how large the "
        "cache gets and how\nlong encoding takes. Writes nothing. Exit code 2 if rows cannot be "
        "used.",
        "launcher data check --recipe flux_controlnet --config quickstart",
    )
    add_plugin_options(parser)
    parser.add_argument(
        "--full",
        action="store_true",
        help="decode every image: finds damage inside JPEG files, and images that are the same; "
        "some 20 times slower",
    )
    parser.add_argument(
        "--tflops",
        metavar="N",
        type=float,
        help="work encoding times out with this speed, in 10^12 operations a second, not with "
        "what runs have measured",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, for other programs, with all rows that have problems",
    )
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)
    if options.tflops is not None and not 0 < options.tflops < float("inf"):
        raise UserError(f"--tflops is {options.tflops:g}; give a positive number, such as 100.")

    import json

    from hooks.types import Dist, Inspection
    from launcher.choice import configure
    from launcher.console import Console

    plugins, resolved = configure(options, settings)
    config, console = resolved.config, Console()
    _warn_of_other_data(plugins, console)
    progress = _Progress(console)
    try:
        report = plugins.hook.inspect_data(
            config=config,
            inspection=Inspection(
                full=options.full,
                every=options.json,
                tflops=options.tflops,
                tell=progress.tell,
                build_dataset=lambda: plugins.hook.build_dataset(config=config, dist=Dist()),
            ),
        )
    finally:
        progress.close()
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        console.result(report.text())
    if problems := report.problems():
        ways = "Mend or remove these rows"
        ways += "." if options.json else "; with --json, all of them are listed."
        raise UserError("\n".join([*problems, ways]))


def _warn_of_other_data(plugins: Plugins, console: Console) -> None:
    """A variant may bring data of its own, of which the recipe's report knows nothing."""
    infos = {info.name: info for info in plugins.describe()}
    built, seen = infos["build_dataset"].owner, infos["inspect_data"].owner
    if built is None or seen is None or plugins.leaves_to_launcher("inspect_data"):
        return
    if _plugin(built) != _plugin(seen):
        source, looked_at = built.place("build_dataset"), seen.place("inspect_data")
        console.headline(
            f"note: a run gets its data from {' '.join(source.split())}; what follows is about the "
            f"data that {' '.join(looked_at.split())} looks at."
        )


def _plugin(function: FunctionInfo) -> str:
    return function.plugin


class _Progress:
    """A bar for each thing that goes on, one after the other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what: str | None = None
        self._bar: Progress | None = None

    def tell(self, what: str, unit: str, done: int, total: int) -> None:
        """So much of it is done."""
        if not done:
            self.close()
        if self._bar is None or what != self._what:
            self.close()
            self._what = what
            self._bar = self._console.progress(total, what=what, unit=unit)
        if done:
            self._bar.update(done)

    def close(self) -> None:
        """No more of it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
