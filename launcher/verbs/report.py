"""`launcher report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.arguments import new_parser, parse, refuse_rest
from launcher.rundir import expand
from launcher.training import atomic
from launcher.training.errors import UserError

_NAME = "report.html"


def report(argv: list[str]) -> None:
    """make a page of charts and tables about a run, or several side by side"""
    parser = new_parser(
        "report",
        "launcher report RUN [RUN ...] [--output FILE]",
        "Write one HTML page about a run: its figures over the steps, validation images, "
        "precision,\nconfiguration, versions, files. It needs no network and no other file. With "
        "several runs, they\nare shown side by side, with the options that differ. A run may still "
        "be going on.",
        "launcher report runs/first runs/second --output first-or-second.html",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"the page, replaced if there is one; default: {_NAME} in the folder of the run, or "
        "for several runs in the current one",
    )
    options, rest = parse(parser, argv)
    if options is None:
        return
    refuse_rest(parser, rest)
    folders = _folders(options.runs)
    output = _output(options.output, folders)

    from launcher.report.page import page
    from launcher.report.run import read_run

    runs = [read_run(path, label) for path, label in zip(folders, labels(folders))]
    _write(output, page(runs))
    print(output)


def _folders(given: Sequence[str]) -> list[Path]:
    folders = []
    for name in given:
        try:
            folders.append(expand(name))
        except ValueError as error:
            raise UserError(f"{name!r} is no folder of a run: {error}.") from error
    for index, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:index]]:
            raise UserError(f"{given[index]} is given twice. Name each run once.")
    return folders


def labels(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as it takes to tell them apart."""
    most = max(len(folder.parts) for folder in folders)
    for count in range(1, most + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("the folders are not the same")


def _output(given: str | None, folders: Sequence[Path]) -> Path:
    if given is None:
        return (folders[0] if len(folders) == 1 else Path.cwd()) / _NAME
    path = Path(given).expanduser()
    if path.is_dir():
        raise UserError(f"--output {given} is a folder. Name the file: --output {path / _NAME}.")
    if path.suffix.lower() not in (".html", ".htm"):
        # A file of a run must not be replaced by a slip of the hand.
        raise UserError(f"--output {given}: the page's name ends in .html, as in {_NAME}.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--output {given}: there is no folder {path.parent}. Make it first.")
    return path.absolute()


def _write(path: Path, text: str) -> None:
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise UserError(
            f"the page cannot be written to {path}: {error.strerror or error}. Name another place: "
            "--output FILE."
        ) from error
