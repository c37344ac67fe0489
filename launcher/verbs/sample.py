"""`launcher sample`."""

from __future__ import annotations

import argparse
import math

from launcher.arguments import new_parser, parse, read_settings
from launcher.training.errors import UserError

_MULTIPLE = 16


def sample(argv: list[str]) -> None:
    """make images with a ControlNet: of a run, or any other"""
    parser = new_parser(
        "sample",
        "launcher sample RUN --prompt TEXT --control IMAGE [options] [name=value ...]",
        "Make images with what a run has trained, finished or still going on (its newest export or "
        "checkpoint\nis used), with one of its checkpoints, or with any ControlNet in diffusers' "
        "layout. The folder of the\nrun is only read. Prompts and control images belong together "
        "in the order in which they are given;\none of either serves all of the other.",
        'launcher sample runs/first --prompt "a red circle" --control edges.png --scale 0.5 1.0',
    )
    parser.add_argument(
        "run", metavar="RUN", help="the folder of a run, of a checkpoint, or of a ControlNet"
    )
    add = parser.add_argument
    add("--prompt", metavar="TEXT", action="append", default=[], help="a prompt; repeatable")
    add("--control", metavar="IMAGE", action="append", default=[], help="its image; repeatable")
    add(
        "--prompts",
        metavar="FILE",
        help='both from a file, one {"prompt": ..., "control": ...} a line; paths are relative to '
        "the file",
    )
    add(
        "--scale",
        metavar="X",
        type=float,
        nargs="+",
        default=[1.0],
        help="strength of the control (controlnet_conditioning_scale), or several (default: 1)",
    )
    add("--steps", metavar="N", type=int, default=28, help="of the sampler (default: 28)")
    add("--guidance", metavar="X", type=float, help="guidance scale (FLUX.1-dev: 3.5)")
    add(
        "--control-mode",
        metavar="N",
        type=int,
        help="kind of the control images, for a union of ControlNets",
    )
    add("--seed", metavar="N", type=int, default=0, help="of the noise (default: 0)")
    add("--num-images", metavar="N", type=int, default=1, help="of each, of different noise")
    add("--height", metavar="N", type=int, help="in pixels; default: as the run was trained")
    add("--width", metavar="N", type=int, help="in pixels; default: as the run was trained")
    add("--ema", action="store_true", help="use the averaged weights of a run (train.ema_decay)")
    add("--base", metavar="MODEL", help="the FLUX.1 pipeline: a folder or a hub name; needed for a "
        "ControlNet that is no run's")  # fmt: skip
    add("--recipe", metavar="NAME", help="of a ControlNet that is no run's (flux_controlnet)")
    add("--output", metavar="FOLDER", default="samples", help="for the images (default: samples)")
    add("--overwrite", action="store_true", help="replace images that are there already")
    add("-v", "--verbose", action="store_true", help="show the messages of MindSpore, too")
    add("--encodes-only", action="store_true", help=argparse.SUPPRESS)
    options, rest = parse(parser, argv)
    if options is None:
        return
    settings = read_settings(parser, rest)
    _check(options)

    from launcher import sampling
    from launcher.console import Console
    from launcher.interrupt import interruptible, listening

    with listening(), interruptible(lambda: None):
        sampling.run(options, settings, argv, Console())


#: Far beyond what makes sense, and within float16's range.
_LARGEST_SCALE = 1e4


def _check(options: argparse.Namespace) -> None:
    """Raise UserError that names every number that cannot be."""
    problems = [
        f"--scale is {scale}; give a number of ordinary size, such as 0.7."
        for scale in options.scale
        if not abs(scale) <= _LARGEST_SCALE
    ]
    if len({f"{scale:g}" for scale in options.scale}) < len(options.scale):
        problems.append("--scale names the same number twice.")
    guidance = options.guidance
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
        problems.append(f"--guidance is {options.guidance}; give a number from 0 on, such as 3.5.")
    for name, least in (("steps", 1), ("seed", 0), ("num-images", 1), ("control-mode", 0)):
        value = getattr(options, name.replace("-", "_"))
        if value is not None and value < least:
            problems.append(f"--{name} is {value}; give {least} or more.")
    if options.seed >= 2**63:
        problems.append(f"--seed is {options.seed}; give a number below 2^63.")
    for name in ("height", "width"):
        value = getattr(options, name)
        if value is not None and (value < _MULTIPLE or value % _MULTIPLE):
            near = max(_MULTIPLE, value // _MULTIPLE * _MULTIPLE)
            problems.append(
                f"--{name} is {value}; the VAE and the 2x2 packing need multiples of {_MULTIPLE}, "
                f"such as {near}."
            )
    if (options.height is None) != (options.width is None):
        problems.append("give both of --height and --width, or neither.")
    if problems:
        raise UserError("\n".join(problems))
