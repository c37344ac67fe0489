"""How a ControlNet comes to control: `python benchmarks/control_curve.py RUN...`.

Scores every checkpoint of a run as control.py does, at conditioning scale 1, and draws the IoU over
steps; that of the base model without a control stands at step 0. For a curve, let the run keep its
checkpoints: `checkpointing_steps=200`. Several runs are drawn together. Prints a table; `--plot
FILE` writes the picture, `--json FILE` the figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampler import Sampler, Trained, base_of, find, script, size_of
from benchmarks.scoring import (
    Scores,
    add_common,
    check_common,
    heading,
    held_out,
    require_writable,
    row,
    score,
)
from launcher.training.checkpoint import path_of, steps_in
from launcher.training.errors import UserError
from launcher.verbs.report import labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    add_common(parser)
    parser.add_argument("--plot", type=Path, help="draw the curves into this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    check_common(parser, options)
    require_writable(parser, options.json)
    if options.plot is not None:
        if importlib.util.find_spec("matplotlib") is None:
            parser.error("--plot needs matplotlib: pip install matplotlib")
        require_writable(parser, options.plot, plot_endings())
    paths = list(dict.fromkeys(run.expanduser().resolve() for run in options.runs))
    runs = dict(zip(labels(paths), map(checkpoints_of, paths), strict=True))

    curves: dict[str, dict[int, Scores]] = {}
    for name, checkpoints in runs.items():
        print(heading(name))
        curves[name] = curve_of(checkpoints, options)
        if options.json is not None:  # after each: the next may fail
            content = {n: {s: vars(found) for s, found in c.items()} for n, c in curves.items()}
            options.json.write_text(json.dumps(content, indent=2) + "\n")
        if options.plot is not None:
            lines = {n: {s: found.iou for s, found in c.items()} for n, c in curves.items()}
            plot(lines, options.plot)


def checkpoints_of(run: Path) -> dict[int, Trained]:
    """By step.

    Raises:
        UserError: the run has none, or one is damaged.
    """
    steps = steps_in(run)
    if not steps:
        raise UserError(
            f"{run} has no checkpoint. Give the folder of a run that has some; "
            "checkpoint.checkpoints_total_limit says how many a run keeps."
        )
    return {step: find(path_of(run, step)) for step in steps}


def curve_of(checkpoints: dict[int, Trained], options: argparse.Namespace) -> dict[int, Scores]:
    """Scores by step; 0: without a ControlNet. Each is printed at once."""
    first = next(iter(checkpoints.values()))
    scenes, controls = held_out(options.samples, size_of(first, options.size), options.condition)
    base = base_of(first, options.base)
    sampler = Sampler(base, first.weights, steps=options.steps, tokens=first.tokens)
    embeddings = sampler.encode([scene.caption for scene in scenes])
    found = {0: score(sampler.sample(embeddings, controls, 0.0), scenes, scenes)}
    print(row("no control", found[0]), flush=True)
    for step, trained in checkpoints.items():
        sampler.load(trained.weights)
        found[step] = score(sampler.sample(embeddings, controls, 1.0), scenes, scenes)
        print(row(f"step {step}", found[step]), flush=True)
    return found


def plot_endings() -> set[str]:
    """Of the files that matplotlib can write."""
    from matplotlib.backend_bases import FigureCanvasBase

    return {f".{ending}" for ending in FigureCanvasBase.get_supported_filetypes()}


def plot(curves: dict[str, dict[int, float]], path: Path) -> None:
    """Draw the curves."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    for name, curve in curves.items():
        axes.plot([*curve], [*curve.values()], marker="o", markersize=3, label=name)
    axes.set(xlabel="step", ylabel="mean IoU with the control", ylim=(0, 1))
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    script(main)
