"""Whether diffusers paints what we paint: `python benchmarks/painted.py RUN`.

Samples the scenes of control.py with a run's ControlNet, once by MindSpore as `launcher sample`
does, once by torch and diffusers, which load the same two folders: everything from the captions'
letters to the pixels is computed twice. Only the noise, of the latents and of the control images'
posterior, is the same. Prints how far the pictures are apart and both IoU; exits with 1 beyond the
limits. The first call installs torch (torch_environment.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampler import Sampler, base_of, find, script, size_of
from benchmarks.scoring import add_common, check_common, held_out, score
from benchmarks.torch_environment import torch_python
from launcher.training.errors import UserError

LIMIT = 2.0  # mean absolute difference, of 255
IOU_LIMIT = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run, a checkpoint, or a ControlNet")
    add_common(parser)
    parser.set_defaults(samples=50)
    options = parser.parse_args()
    check_common(parser, options)
    run = find(options.run)
    base = base_of(run, options.base)

    size = size_of(run, options.size)
    scenes, controls = held_out(options.samples, size, options.condition)
    captions = [scene.caption for scene in scenes]
    sampler = Sampler(base, run.weights, steps=options.steps, tokens=run.tokens)
    ours = sampler.sample(sampler.encode(captions), controls, 1.0)
    noise = sampler.noise(len(scenes), size)
    from flux_controlnet_plugin.images import Settings

    with tempfile.TemporaryDirectory() as folder:
        inputs, output = Path(folder, "inputs.npz"), Path(folder, "pictures.npy")
        np.savez(
            inputs, controls=controls, captions=captions, scale=1.0, steps=options.steps,
            guidance=Settings(size, size).guidance_scale, tokens=run.tokens,
            **noise,
        )  # fmt: skip
        paint = (torch_python(), Path(__file__).parent / "reference" / "paint.py")
        if subprocess.run([*paint, base, run.weights, inputs, output]).returncode:
            raise UserError(
                "diffusers did not paint; what it says is above. Its environment is .venv-torch: "
                "remove it, and it is installed anew."
            )
        theirs = np.load(output)
    apart = np.abs(ours.astype(int) - theirs).reshape(len(ours), -1)
    overlaps = [score(pictures, scenes, scenes).iou for pictures in (ours, theirs)]
    results = {
        "pictures": len(ours),
        "mean_difference": apart.mean(),
        "worst_picture": apart.mean(axis=1).max(),
        "iou": overlaps[0],
        "iou_diffusers": overlaps[1],
    }
    print(
        f"{len(ours)} pictures: {apart.mean():.4f} of 255 apart on average (limit {LIMIT:g}), the "
        f"farthest {results['worst_picture']:.4f}; IoU {overlaps[0]:.4f}, of diffusers "
        f"{overlaps[1]:.4f} (limit {IOU_LIMIT:g} apart)"
    )
    print(json.dumps(results))
    sys.exit(int(apart.mean() > LIMIT or abs(overlaps[0] - overlaps[1]) > IOU_LIMIT))


if __name__ == "__main__":
    script(main)
