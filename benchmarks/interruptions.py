"""Runs that are killed at random moments, and one that is not.

    python benchmarks/interruptions.py

Trains the model of circles.yaml for 200 steps, undisturbed; then once more with a checkpoint every
few steps, killed by SIGKILL 20 times and continued each time by the same command (`--resume
latest`). A third of the kills come while a checkpoint is being written, a third after a random
number of steps, a third at a random moment, be it while the process is only starting. After each of
them every checkpoint in the folder is read and checked.

In the end weights, averaged weights, the optimizer's state and the figures of every step (without
their times) are compared bit by bit. Exit code 1 if anything differs, or the run was over before
the last kill. Takes about half a minute a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: Figures of a step that depend on the time of day.
TIMES = ("step_seconds", "stall_share", "samples_per_second", "memory_bytes")
WEIGHTS = "controlnet/diffusion_pytorch_model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints (4)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("settings", nargs="*", help="name=value for both runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(compare(Path(folder), arguments))


def compare(folder: Path, arguments: argparse.Namespace) -> int:
    """Returns the exit code."""
    whole, killed = folder / "whole", folder / "killed"
    options = [
        *("--recipe", "flux_controlnet", "--config", "benchmarks/circles.yaml"),
        *(f"max_train_steps={arguments.steps}", f"checkpointing_steps={arguments.every}"),
        *("checkpoints_total_limit=2", "ema_decay=0.99", "max_sequence_length=64"),
        *("max_train_samples=16", f"cache_dir={folder / 'cache'}", *arguments.settings),
    ]
    began = time.monotonic()
    start(options, whole).wait()
    step_seconds = statistics.median(line["step_seconds"] for line in lines(whole))
    starting = max(0.0, time.monotonic() - began - arguments.steps * step_seconds)
    rng = random.Random(arguments.seed)
    kinds: dict[str, int] = {}
    for number in range(arguments.kills):
        done = steps_of(killed)
        process = start(["--resume", "latest", *options], killed)
        kind = ("saving", "steps", "time")[number % 3]
        # The last third of the run is left for the end.
        room = max(1, int((number + 1) * arguments.steps * 0.7 / arguments.kills) - done)
        seconds = rng.uniform(0, starting + room * step_seconds)
        steps = room if kind == "time" else rng.randint(1, room)
        wait_for(kind, process, killed, done + steps, seconds, rng)
        if process.poll() is not None:
            print(f"  the run was over before kill {number + 1}")
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kinds[kind] = kinds.get(kind, 0) + 1
        left = [p.name for p in killed.glob(".checkpoint-*")] if killed.exists() else []
        whole_ones = check_all(killed)
        print(
            f"kill {number + 1:2d} ({kind}): {steps_of(killed)} steps, checkpoints "
            f"{whole_ones} whole{', unfinished ' + ', '.join(left) if left else ''}",
            flush=True,
        )
    last = start(["--resume", "latest", *options], killed)
    assert last.wait() == 0, "the last run failed"
    print(f"kills: {kinds}")
    last_checkpoint = f"checkpoint-{arguments.steps // arguments.every * arguments.every}"
    bad = int(sum(kinds.values()) < arguments.kills)
    for name in (WEIGHTS, f"ema/{WEIGHTS}", f"{last_checkpoint}/state.safetensors"):
        same = (whole / name).read_bytes() == (killed / name).read_bytes()
        bad += not same
        print(f"{name}: {'equal' if same else 'DIFFERENT'}")
    same = figures(whole) == figures(killed)
    bad += not same
    print(f"metrics.jsonl, {len(figures(killed))} lines: {'equal' if same else 'DIFFERENT'}")
    return int(bad > 0)


def start(options: list[str], output_dir: Path) -> subprocess.Popen[bytes]:
    """A run, in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *options, f"output_dir={output_dir}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=open(output_dir.with_suffix(".log"), "ab"),
    )


def wait_for(
    kind: str,
    process: subprocess.Popen[bytes],
    folder: Path,
    steps: int,
    seconds: float,
    rng: random.Random,
) -> None:
    """Wait for the moment to kill a run: after `seconds`, but after `steps` at the latest, if the
    kind is "time", else when it has come to `steps`."""
    if kind == "time":
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None and steps_of(folder) < steps:
            time.sleep(0.02)
        return
    # A continued run first loses the lines after its checkpoint, so lines are counted anew.
    while process.poll() is None and not is_training(folder, process):
        time.sleep(0.02)
    while process.poll() is None and steps_of(folder) < steps:
        time.sleep(0.005)
    if kind == "saving":
        while process.poll() is None and not list(folder.glob(".checkpoint-*.partial")):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.02))
    else:
        time.sleep(rng.uniform(0, 0.3))


def is_training(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has come to its first step: precision.json is newer than it."""
    report = folder / "precision.json"
    started = os.stat(f"/proc/{process.pid}").st_ctime
    return report.exists() and report.stat().st_mtime > started


def steps_of(folder: Path) -> int:
    """Lines in metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def figures(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without times."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines(folder)]


def lines(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def check_all(folder: Path) -> list[int]:
    """Read every checkpoint. Returns their steps.

    Raises:
        DamagedError: one that claims to be complete is not.
    """
    from launcher.training import checkpoint

    steps = checkpoint.steps_in(folder)
    for step in steps:
        found = checkpoint.read(checkpoint.path_of(folder, step))
        assert found.step == step
    return steps


if __name__ == "__main__":
    main()
