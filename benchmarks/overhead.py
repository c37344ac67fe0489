"""What the launcher's loop costs beyond the compiled step: `python benchmarks/overhead.py`.

Runs the launcher on circles.yaml (batch 2, 512 text tokens, ControlNet 1+1). Between two
steps of the loop a plugin times one bare call of the same compiled step on ready tensors, until
its loss is on the host. The loop's time of a step is everything from the end of one such call to
the start of the next: drawing and collating the batch, the hooks, the copies to the device, the
step, the line of metrics, progress. Both alternate, so that whatever else the machine does meets
both.

Prints a table and, as the last line, the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps measured (200)")
    steps = parser.parse_args().steps
    os.chdir(HERE.parent)  # the configuration's paths are relative to it

    from launcher.cli import main as launcher

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        code = launcher(
            [
                "--recipe", "flux_controlnet", "--config", "benchmarks/circles.yaml",
                "-p", str(HERE / "overhead_plugin.py"),
                "model.num_double_layers=1", "model.num_single_layers=1",
                "data.max_sequence_length=512", "train.train_batch_size=2",
                f"train.max_train_steps={steps + WARM_UP + 1}", f"train.output_dir={run}",
            ]
        )  # fmt: skip
        if code:
            sys.exit(code)
        times = json.loads((run / "overhead.json").read_text())

    loop, bare = times["loop_ms"][WARM_UP:], times["bare_ms"][WARM_UP:]
    ratio = statistics.median(a / b for a, b in zip(loop, bare))
    difference = statistics.median(a - b for a, b in zip(loop, bare))
    print(f"{'':<24}{'median':>11}{'fastest':>11}")
    print(f"{'step in the loop':<24}{statistics.median(loop):>8.2f} ms{min(loop):>8.2f} ms")
    print(f"{'bare compiled step':<24}{statistics.median(bare):>8.2f} ms{min(bare):>8.2f} ms")
    print(f"{'difference of a pair':<24}{difference:>8.2f} ms")
    print(f"ratio, median of {len(loop)} pairs: {ratio:.3f} (limit 1.05)")
    print(
        json.dumps(
            {
                "loop_ms": statistics.median(loop),
                "bare_ms": statistics.median(bare),
                "difference_ms": difference,
                "ratio": ratio,
                "pairs": len(loop),
            }
        )
    )


if __name__ == "__main__":
    main()
