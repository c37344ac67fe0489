"""How a ControlNet comes to control: `python benchmarks/control_curve.py --base PIPELINE RUN...`.

Scores every checkpoint of a run as control.py does, at conditioning scale 1, and draws the IoU over
steps; that of the base model without a control stands at step 0. For a curve, let the run keep its
checkpoints: `checkpointing_steps=200`. Several runs are drawn together. Prints a table; `--plot
FILE` writes the picture (needs matplotlib: `pip install -c constraints.txt .[plots]`), `--json
FILE` the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.control import Sampler, held_out, row, score
from benchmarks.shape_scores import shapes
from launcher.training.checkpoint import path_of, steps_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--base", type=Path, required=True, help="the pipeline's folder")
    parser.add_argument("--samples", type=int, default=100, help="scenes (100)")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures (64)")
    parser.add_argument("--steps", type=int, default=28, help="of the sampler (28)")
    parser.add_argument("--condition", choices=shapes.CONDITIONS, default="outline")
    parser.add_argument("--plot", type=Path, help="draw the curves into this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    scenes, controls = held_out(options.samples, options.size, options.condition)
    curves: dict[str, dict[int, float]] = {}
    for run in options.runs:
        steps = steps_in(run)
        if not steps:
            sys.exit(f"{run} has no checkpoint.")
        sampler = Sampler(options.base, path_of(run, steps[0]), options.steps)
        embeddings = sampler.encode([scene.caption for scene in scenes])
        print(f"{run.name:<28}{'IoU':>8}{'colours':>10}{'shape':>8}")
        found = score(sampler.sample(embeddings, controls, 0.0), scenes, scenes)
        print(f"{'no control':<28}{row(found)}", flush=True)
        curves[run.name] = {0: found.iou}
        for step in steps:
            sampler.load(path_of(run, step))
            found = score(sampler.sample(embeddings, controls, 1.0), scenes, scenes)
            curves[run.name][step] = found.iou
            print(f"{f'step {step}':<28}{row(found)}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(curves, indent=2) + "\n")
    if options.plot is not None:
        plot(curves, options.plot)


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


if __name__ == "__main__":
    main()
