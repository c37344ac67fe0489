"""Whether half precision trains as float32 does: `python benchmarks/policies.py`.

Trains the ControlNet of circles.yaml under every policy of `launcher/configs/precision`, in bf16
and in fp16, each in a process of its own as a user starts it, on the same batches with the
same noise. Prints for each the mean loss of the last steps and how far it is from that of the run
in float32 (`no`), the largest difference of a single step's loss, how many updates were skipped
(they were tried again, and count for nothing else), and the seconds of the whole process. The last
line is the same as JSON. Exits with 1 if a policy is off by more than 2 %; policy C without
stochastic rounding is shown for information. On a CPU, bf16 and fp16 are slow: it takes 22 minutes
on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAST = 20  # steps whose mean is the loss of a run; that of one step depends on its few samples
LIMIT = 2.0  # percent

NEAREST = ["optimizer.stochastic_rounding=false"]

# Name, configuration, further options, whether the limit holds. The first is the measure.
POLICIES = {
    "no": (None, [], True),
    "A": ("precision/policy_a", [], True),
    "B": ("precision/policy_b", [], True),
    "C": ("precision/policy_c", [], True),
    "C-nearest": ("precision/policy_c", NEAREST, False),
    "C-adamw_bf16": ("precision/policy_c", ["optimizer.name=adamw_bf16", *NEAREST], False),
}
CASES = {"no": ("no", "no")} | {
    f"{policy}-{precision}": (policy, precision)
    for policy in list(POLICIES)[1:]
    for precision in ("bf16", "fp16")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of each run (200)")
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME",
        help=f"what to run; `no` always does: {', '.join(CASES)}",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, help="folder for the runs (a temporary one)")
    arguments = parser.parse_args()

    results = []
    passed = True
    print(
        f"{'policy':<14}{'precision':<11}{'loss':>10}{'of fp32':>10}{'one step':>10}"
        f"{'skipped':>9}{'seconds':>9}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        measure = []
        for case in CASES:
            if case != "no" and case not in arguments.only:
                continue
            policy, precision = CASES[case]
            start = time.perf_counter()
            losses, skipped = run(policy, precision, arguments.steps, folder / case)
            seconds = time.perf_counter() - start
            measure = measure or losses  # `no` is the first case
            loss, of_measure = mean(losses[-LAST:]), mean(measure[-LAST:])
            difference = (loss / of_measure - 1) * 100
            one_step = max(
                (abs(a / b - 1) * 100 for a, b in zip(losses, measure)),
                key=lambda value: (math.isnan(value), value),  # max() may pass over a NaN
            )
            results.append(
                dict(
                    policy=policy, precision=precision, loss=loss, difference_percent=difference,
                    one_step_percent=one_step, skipped=skipped, seconds=seconds,
                )
            )  # fmt: skip
            print(
                f"{policy:<14}{precision:<11}{loss:>10.5f}{difference:>+9.3f}%{one_step:>9.3f}%"
                f"{skipped:>9}{seconds:>9.0f}",
                flush=True,
            )
            within = abs(difference) <= LIMIT  # not so for NaN
            passed = passed and (within or not POLICIES[policy][2])
    for row in results:  # JSON has no NaN
        row.update((name, None) for name, value in row.items() if value != value)
    print(json.dumps({"steps": arguments.steps, "last": LAST, "results": results}))
    sys.exit(0 if passed else 1)


def run(policy: str, precision: str, steps: int, output_dir: Path) -> tuple[list[float], int]:
    """Train. Returns the loss of every step (NaN if not finite) and how many were skipped.

    A run that did not come to its end (20 skipped updates in a row end it) has NaN for the steps
    that it did not do; what it said goes to standard error.
    """
    configuration, options, _ = POLICIES[policy]
    process = subprocess.run(
        [
            *(sys.executable, "-m", "launcher"),
            *("--recipe", "flux_controlnet", "--config", "benchmarks/circles.yaml"),
            *(("--config", configuration) if configuration else ()),
            *(f"mixed_precision={precision}", f"output_dir={output_dir}"),
            *(f"max_train_steps={steps}", *options),
        ],
        cwd=ROOT,  # the configuration's paths are relative to it
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        print(process.stderr, file=sys.stderr, flush=True)
    metrics = output_dir / "metrics.jsonl"
    text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    done = {line["step"]: line["loss"] for line in lines if not line["skipped"]}
    if not lines or (process.returncode and steps in done):  # it was not the training that failed
        sys.exit(f"{policy} {precision}: the launcher ended with {process.returncode}")
    losses = [done.get(step) for step in range(1, steps + 1)]
    return (
        [math.nan if loss is None else loss for loss in losses],
        sum(line["skipped"] for line in lines),
    )


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


if __name__ == "__main__":
    main()
