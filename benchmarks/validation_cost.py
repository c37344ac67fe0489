"""What validations cost: `python benchmarks/validation_cost.py`.

Runs the quickstart three times, each run of `--steps` steps:

- off, before and after the other: without validations. How far these two are apart is the noise.
- on: with `--samples` held-out samples, looked at every few steps. No images are made.

The time of a validation is measured in the process of the run by a variant that wraps the hook
`validate`; compiling its graph comes on top, once, and is read from what the launcher says. The
time of a step is `step_seconds` of metrics.jsonl, medians without the first ten.

Prints seconds; the last line is the same as JSON. Exits with 1 if one of the validations takes more
than two seconds.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 2.0
WARM_UP = 10
VARIANT = '''
"""Writes how long each validation took."""

import json
import time

from hooks import hookimpl


@hookimpl(wrapper=True)
def validate(state):
    started = time.perf_counter()
    found = yield
    with open(state.output_dir / "seconds.jsonl", "a") as file:
        file.write(json.dumps(time.perf_counter() - started) + "\\n")
    return found
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--samples", type=int, default=16, help="held out (16)")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps: more than {WARM_UP}, which are left out")
    if arguments.samples < 1:
        parser.error("--samples: at least 1")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments.steps, arguments.samples)
    print(
        f"a validation of {arguments.samples} samples: {results['validation']:.2f} s at the "
        f"median, {results['slowest']:.2f} s at most (limit {LIMIT}); compiled in "
        f"{results['compiled']:.0f} s"
    )
    off, again, on = results["off"], results["off_again"], results["on"]
    print(
        f"a step: {off:.4f} s without validations, {again:.4f} s without, once more "
        f"({again / off:.3f}x), {on:.4f} s between validations ({on / off:.3f}x)"
    )
    print(json.dumps(results))
    sys.exit(results["slowest"] > LIMIT)


def measure(folder: Path, steps: int, samples: int) -> dict[str, float]:
    """Medians, in seconds."""
    variant = folder / "timed.py"
    variant.write_text(VARIANT)
    options = [
        *("--recipe", "flux_controlnet", "--config", "quickstart"),
        *("--config", "benchmarks/unvalidated.yaml"),
        *(f"max_train_steps={steps}", "lr_warmup_steps=10", f"cache_dir={folder / 'cache'}"),
    ]
    validated = [f"heldout_samples={samples}", "validation_steps=5", "at_end=true"]
    validated += ["-p", str(variant)]
    results = {}
    for name, more in (("off", []), ("on", validated), ("off_again", [])):
        output_dir = folder / name
        process = subprocess.run(
            [sys.executable, "-m", "launcher", *options, *more, f"output_dir={output_dir}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if process.returncode:
            sys.exit(process.stderr)
        lines = (output_dir / "metrics.jsonl").read_text().splitlines()[WARM_UP:]
        results[name] = statistics.median(json.loads(line)["step_seconds"] for line in lines)
        if more:
            seconds = list(map(float, (output_dir / "seconds.jsonl").read_text().split()))
            results["validation"] = statistics.median(seconds)
            results["slowest"] = max(seconds)
            found = re.search(r"compiled the validation in (\d+) s", process.stderr)
            assert found is not None, process.stderr
            results["compiled"] = float(found[1])
    return results


if __name__ == "__main__":
    main()
