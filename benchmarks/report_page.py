"""What `launcher report` takes for a long run: `python benchmarks/report_page.py`.

Writes the folder of a run of 100,000 steps with 100 validations of 4 images of 512 x 512, and makes
its page five times, each in a process of its own. Prints the median of the seconds and the size of
the page, each with its limit, and, as the last line, the same as JSON. Exit code 1: over a limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
REPEATS, SECONDS, BYTES = 5, 5.0, 3_000_000


def main() -> None:
    from benchmarks.synthetic_run import make

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000, help="of the run (100000)")
    parser.add_argument("--validations", type=int, default=100, help="of the run (100)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make(
            Path(folder, "run"),
            options.steps,
            validations=options.validations,
            prompts=4,
            side=512,
        )
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "launcher", "report", str(run)],
                check=True,
                cwd=HERE.parent,
                stdout=subprocess.DEVNULL,
            )
            times.append(time.perf_counter() - started)
        size = (run / "report.html").stat().st_size
    median = statistics.median(times)
    print(f"{'':<14}{'measured':>10}{'limit':>10}")
    print(f"{'seconds':<14}{median:>10.2f}{SECONDS:>10.1f}")
    print(f"{'page, MB':<14}{size / 1e6:>10.2f}{BYTES / 1e6:>10.1f}")
    print(json.dumps({"seconds": median, "all_seconds": times, "bytes": size}))
    sys.exit(median > SECONDS or size > BYTES)


if __name__ == "__main__":
    main()
