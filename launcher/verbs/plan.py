"""`launcher plan`."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

from launcher.arguments import add_plugin_options, new_parser, parse, read_settings
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


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

    from launcher.placeholders import configure

    with _no_garbage_collection():
        plugins, resolved = configure(options, settings)

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
