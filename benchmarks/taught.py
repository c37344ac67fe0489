"""What precision and optimizer do to what is learned: `python benchmarks/taught.py`.

Trains the quickstart for `--steps` steps in float32, under every precision policy of
`launcher/configs/precision` in bf16 and in fp16, and with the settings of MindONE's example
(AdamWeightDecay, learning rate 5e-6, constant), also with its optimizer alone; each in a process of
its own, all on the same batches with the same noise. In float32 also with two other seeds, for how
much chance does. Then samples with each ControlNet and scores the pictures as control.py does.
Prints a table; the last line is the same as JSON. On a CPU, bf16 is emulated and fp16 slow. What
fails to train is in the table as such.

`--keep FOLDER` keeps the runs. What is finished there is not trained again, and what was
interrupted is gone on with, unless settings, the base model or the precision policies have changed
since.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampler import Sampler, find, script, size_of
from benchmarks.scoring import heading, held_out, row, score
from launcher.child import INTERRUPTED, foreground
from launcher.training import digests

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = yaml.safe_load(
    (ROOT / "flux_controlnet_plugin" / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
)
BASE = ROOT / QUICKSTART["model"]["pretrained_model_name_or_path"]
WARM_UP = QUICKSTART["train"]["lr_warmup_steps"]
LAST = 50  # steps whose mean is the loss of a run

#: What train_controlnet_flux.py takes where its user says nothing else:
#: https://github.com/mindspore-lab/mindone/tree/master/examples/diffusers/controlnet
MINDONE = (
    *("optimizer.name=adam_weight_decay", "learning_rate=5e-6"),
    *("lr_scheduler=constant", "lr_warmup_steps=0"),
)

#: Arguments by name; the quickstart's own come before them.
CASES: dict[str, tuple[str, ...]] = {
    "float32": (),
    **{f"float32, seed {seed}": (f"seed={seed}",) for seed in (1, 2)},
    **{
        f"policy {policy}, {precision}": (
            *("--config", f"precision/policy_{policy.lower()}"),
            f"mixed_precision={precision}",
        )
        for policy in "ABC"
        for precision in ("bf16", "fp16")
    },
    "AdamWeightDecay": ("optimizer.name=adam_weight_decay",),
    "MindONE's settings": MINDONE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="of each run (600)")
    parser.add_argument("--samples", type=int, default=100, help="scenes (100)")
    parser.add_argument("--keep", type=Path, help="folder for the runs (a temporary one)")
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME",
        help=f"what to run: {'; '.join(CASES)}",
    )  # fmt: skip
    options = parser.parse_args()
    if options.samples < 1:
        parser.error("--samples: at least 1")
    if options.steps <= WARM_UP:
        parser.error(f"--steps: more than the {WARM_UP} of the warm-up")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        runs: dict[str, Path | None] = {}
        for name in options.only:
            print(f"training: {name}", file=sys.stderr, flush=True)
            run = folder / folder_name(name, options.steps)
            runs[name] = run if train(run, options.steps, CASES[name]) else None
        results = measure(runs, options.samples)
    print(json.dumps({"steps": options.steps, "results": results}))


def folder_name(case: str, steps: int) -> str:
    """Of a run. Another one where anything of its settings is another."""
    settings = [
        *(ROOT / "flux_controlnet_plugin" / "configs").glob("*.yaml"),
        *(ROOT / "launcher" / "configs" / "precision").glob("*.yaml"),
        ROOT / "benchmarks" / "unvalidated.yaml",
        *BASE.rglob("*.safetensors"),
    ]
    whole = hashlib.sha256("\0".join(launcher_arguments(Path(), steps, CASES[case])).encode())
    for file in sorted(settings):
        whole.update(digests.of_file(file))
    return "-".join([*re.findall(r"\w+", case.lower()), str(steps), whole.hexdigest()[:8]])


def train(run: Path, steps: int, arguments: tuple[str, ...]) -> bool:
    """Train in a process of its own, unless that is done. Whether it has come to its end."""
    if (run / "exported.json").exists():
        return True
    command = [sys.executable, "-m", "launcher", *launcher_arguments(run, steps, arguments)]
    status = foreground([*command, "--resume", "latest"], cwd=ROOT, stdin=subprocess.DEVNULL)
    if status in INTERRUPTED:
        sys.exit(status)
    return status == 0


def launcher_arguments(run: Path, steps: int, arguments: tuple[str, ...]) -> list[str]:
    """The quickstart without validations, with those of a case."""
    return [
        *("--recipe", "flux_controlnet", "--config", "quickstart"),
        *("--config", "benchmarks/unvalidated.yaml", *arguments),
        *(f"output_dir={run}", f"max_train_steps={steps}"),
        *("checkpointing_steps=100", "checkpoints_total_limit=1"),
    ]


def measure(runs: dict[str, Path | None], samples: int) -> list[dict[str, object]]:
    """Score every run, and print a row for each. None: it has failed."""
    finished = {name: run for name, run in runs.items() if run is not None}
    results: list[dict[str, object]] = []
    print(f"{heading('')}{'loss':>9}{'s a step':>10}{'skipped':>9}")
    if finished:
        first = find(next(iter(finished.values())))
        sampler = Sampler(BASE, first.weights, steps=28, tokens=first.tokens)
        scenes, controls = held_out(samples, size_of(first, None), "outline")
        embeddings = sampler.encode([scene.caption for scene in scenes])
        alone = score(sampler.sample(embeddings, controls, 0.0), scenes, scenes)
        print(row("no control", alone), flush=True)
        results.append({"name": "no control", **vars(alone)})
    for name, run in runs.items():
        if run is None:
            print(f"{name:<22}  failed; see above")
            results.append({"name": name, "failed": True})
            continue
        sampler.load(find(run).weights)
        found = score(sampler.sample(embeddings, controls, 1.0), scenes, scenes)
        steps = figures(run)
        print(
            f"{row(name, found)}{steps['loss']:>9.4f}{steps['step_seconds']:>10.2f}"
            f"{steps['skipped']:>9}",
            flush=True,
        )
        results.append({"name": name, **vars(found), **steps})
    return results


def figures(run: Path) -> dict[str, float]:
    """Of a run's steps: the mean of its last losses, the median of seconds, updates left out."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    done = [line for line in lines if not line["skipped"]]
    return {
        "loss": statistics.fmean(line["loss"] for line in done[-LAST:]),
        "step_seconds": statistics.median(line["step_seconds"] for line in lines),
        "skipped": len(lines) - len(done),
    }


if __name__ == "__main__":
    script(main)
