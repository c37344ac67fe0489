"""`launcher plan`."""

from __future__ import annotations

import contextlib
import gc
import itertools
from typing import TYPE_CHECKING

from launcher.arguments import add_plugin_options, new_parser, parse, read_settings
from launcher.training.errors import UserError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from launcher.config import OptionInfo, Resolved, Source
    from launcher.plugins import Plugins


def plan(argv: list[str]) -> None:
    """show the memory that a run takes, before it is made"""
    parser = new_parser(
        "plan",
        "launcher plan --recipe NAME [--config FILE] [-p PLUGIN] [--device-memory 64GB] "
        "[--devices N] [--json] [name=value ...]",
        "Count what a run takes on its device: parameters, gradients, optimizer state, and an "
        "estimate of\nthe activations; what other policies, optimizers and ZeRO stages would take; "
        "the size of the\ncache; and what to change if it does not fit. No weight is read and "
        "nothing is downloaded: the\nsizes of FLUX.1-dev are known. Options that a run needs and "
        "a plan does not may be left out.",
        "launcher plan --recipe flux_controlnet num_single_layers=0 --device-memory 64GB",
    )
    add_plugin_options(parser)
    parser.add_argument(
        "--device-memory", metavar="SIZE", default="64GB", help="of one device (default: 64GB)"
    )
    parser.add_argument(
        "--devices", metavar="N", default="8", help="that ZeRO would divide among (default: 8)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)
    device_memory = _bytes(options.device_memory)
    devices = _count(options.devices)

    with _no_garbage_collection():
        plugins, resolved = _configure(options, settings)

        from launcher.memory_plan import table
        from launcher.memory_plan.plan import make_plan

        made = make_plan(plugins, resolved.config, device_memory=device_memory, devices=devices)
    print(table.as_json(made) if options.json else table.text(made))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Importing MindONE makes millions of objects, and looking among them for garbage, of which
    there is none, takes more than a second."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _bytes(text: str) -> int:
    """`64GB` in bytes.

    Raises:
        UserError: it is no size.
    """
    from launcher.training.sizes import parse_size

    try:
        size = parse_size(text)
    except ValueError:
        size = 0
    if not size:
        raise UserError(
            f"--device-memory is {text!r}; give a number above 0 and a unit (GB or GiB), as in "
            "--device-memory 64GB."
        )
    return size


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"--devices is {text!r}; give the number of devices that the run would have, 1 or "
            "more, as in --devices 8."
        )
    return int(text)


def _configure(options: argparse.Namespace, settings: list[str]) -> tuple[Plugins, Resolved]:
    """The plugins, and the configuration with placeholders for what a plan can do without."""
    from launcher.choice import choose
    from launcher.config import read_overrides, resolve
    from launcher.sections import SECTIONS

    overrides = read_overrides(settings)
    plugins, sources = choose(options)
    sections = plugins.sections(SECTIONS)
    given = [_filled(source) for source in [*sources, overrides]]
    # Of options of which a run needs one, such as several kinds of data sets, a starting file asks
    # for the usual one; where another is given, a placeholder in it would be one too many.
    required, asked = _placeholders(sections)
    errors = []
    for count in range(len(asked) + 1):
        for some in itertools.combinations(asked, count):
            try:
                return plugins, resolve(sections, [_source([*required, *some]), *given])
            except UserError as error:
                errors.append(error)
    raise min(errors, key=lambda error: str(error).count("\n"))


def _filled(source: Source) -> Source:
    """A file without the lines that a starting file leaves to be filled in."""
    import dataclasses

    from launcher.config import PLACEHOLDER

    values = {key: given for key, given in source.values.items() if given.text != PLACEHOLDER}
    return dataclasses.replace(source, values=values)


def _placeholders(sections: dict[str, type]) -> tuple[list[OptionInfo], list[OptionInfo]]:
    """Options of text that a run needs, and those that it may need."""
    from launcher.config import list_options

    infos = [info for info in list_options(sections) if info.takes.startswith("text")]
    required = [info for info in infos if info.is_required]
    return required, [info for info in infos if info.is_asked and not info.is_required]


def _source(infos: list[OptionInfo]) -> Source:
    from launcher.config import Source
    from launcher.config_values import Given
    from launcher.training.sizes_only import NOT_GIVEN

    given = Given(NOT_GIVEN, NOT_GIVEN, "not given")
    return Source("not given", {(info.section, info.name): given for info in infos})
