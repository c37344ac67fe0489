"""Samples per second of a run against mindone's way: `python benchmarks/throughput.py`.

Ours is a run of `launcher --recipe flux_controlnet` with circles.yaml, its encodings in
the cache; a step's time is `step_seconds` of metrics.jsonl. The other side,
`throughput_mindone.py`, trains on the same model, data, batch size, resolution and 512 text tokens
as mindone's script does: embeddings as lists of float32 in Arrow, images read and encoded by the
VAE with every step. Both are in graph mode, on the same CPU kernels, and the loss is on the host at
the end of each step. What is done once is not counted: text embeddings on either side, and the
VAE's encodings on ours.

The two take turns: a run of the launcher, then as many steps of the other side, which waits in
between with its graph compiled, and has done `SETTLE` steps before. The first `WARM_UP` steps of
each turn are left out, in which the other side would live on batches made while it waited. The
ratio is the median over the turns, but for those during which other programs took more than a
twentieth of the machine: they hit the side harder that uses more threads.

The larger the images, the more the VAE in the step costs, and the less the rest of it: see
`--resolution`. At the 64 pixels of circles.yaml, the 512 text tokens are most of what the networks
do.

Prints samples per second, the share of time that each side waited for a batch, and where the other
side spends its time; the last line is the same as JSON. Exits with 1 if the ratio is under 4. About
seven minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks import Worker, busy_seconds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = ROOT / "tests" / "data"

LIMIT = 4.0
#: Share of the machine's processor time up to which other programs do not disturb.
QUIET = 0.05
SETTLE = 100
WARM_UP = 25  # more than a `GeneratorDataset` makes ahead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="turns of each side (3)")
    parser.add_argument("--steps", type=int, default=100, help="steps of a turn (100)")
    parser.add_argument("--resolution", type=int, default=64, help="pixels (64)")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps must be more than the {WARM_UP} that are left out")

    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        resolution = arguments.resolution
        launch(folder, "warm-up", WARM_UP, resolution)  # fills the cache
        options = configuration(folder / "warm-up")
        other = Other(options)
        other.run(SETTLE)
        for number in range(arguments.turns):
            foreign, start = foreign_seconds(other), time.perf_counter()
            run = folder / f"turn-{number}"
            launch(folder, run.name, arguments.steps, resolution)
            ours, theirs = measured(run), other.block(arguments.steps)
            available = (time.perf_counter() - start) * (os.cpu_count() or 1)
            others = max(foreign_seconds(other) - foreign, 0.0) / available
            turns.append(Turn(ours, theirs, others))
        other.close()

    batch = options["train"]["train_batch_size"]
    quiet = [turn for turn in turns if turn.others <= QUIET]
    used = quiet or turns
    ratio = statistics.median(turn.ratio for turn in used)
    sides = {"ours": [t.ours for t in used], "mindone's way": [t.theirs for t in used]}
    steps = {side: statistics.median(joined(found, "seconds")) for side, found in sides.items()}
    waits = {
        side: sum(joined(found, "waited")) / sum(joined(found, "seconds"))
        for side, found in sides.items()
    }
    print(f"{'':<16}{'samples/s':>12}{'ms/step':>12}{'waiting':>12}")
    for side, seconds in steps.items():
        print(f"{side:<16}{batch / seconds:>12.2f}{seconds * 1e3:>12.1f}{waits[side]:>12.2%}")
    print(f"ratio, median of {len(used)} turns: {ratio:.2f} (limit {LIMIT:g})")
    if quiet:
        print(f"left out: {len(turns) - len(quiet)} turns during which the machine was busy")
    else:
        print(
            "THE MACHINE WAS BUSY with other programs, and these figures mean little. Run it again "
            "when nothing else runs."
        )

    print("\nmindone's way, each part by itself, ms a step")
    for what, milliseconds in (
        ("graph of VAE, networks, update", other.about["step"]),
        ("  the VAE, compiled alone", other.about["vae"]),
        ("making a batch, in a thread beside", other.about["data"]),
        ("step in the loop, with that thread", steps["mindone's way"] * 1e3),
    ):
        print(f"{what:<38}{milliseconds:>10.1f}")
    print(
        json.dumps(
            dict(
                samples_per_second={side: batch / seconds for side, seconds in steps.items()},
                resolution=resolution,
                ratio=ratio,
                ratio_of_turns=[round(turn.ratio, 3) for turn in turns],
                others_cpu_share_of_turns=[round(turn.others, 3) for turn in turns],
                quiet=bool(quiet),
                waiting=waits,
                mindone_alone_ms=other.about,
            )
        )
    )
    sys.exit(0 if ratio >= LIMIT else 1)


@dataclass(frozen=True)
class Turn:
    """A block of steps on either side, one after the other.

    Attributes:
        ours, theirs: of each step, `seconds`, and how many of them were `waited` for a batch.
        others: share of the machine's processor time that went to other programs meanwhile.
    """

    ours: dict[str, list[float]]
    theirs: dict[str, list[float]]
    others: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.theirs["seconds"]) / statistics.median(self.ours["seconds"])


def joined(blocks: list[dict[str, list[float]]], name: str) -> list[float]:
    return [value for block in blocks for value in block[name]]


def foreign_seconds(other: Other) -> float:
    """Processor time that other programs have used until now."""
    of_runs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_seconds() - other.cpu_seconds() - of_runs.ru_utime - of_runs.ru_stime


def launch(folder: Path, run: str, steps: int, resolution: int) -> None:
    """Our run for so many steps, into a folder."""
    command = [
        sys.executable, "-m", "launcher", "--recipe", "flux_controlnet",
        "--config", "benchmarks/circles.yaml", f"data.cache_dir={folder / 'cache'}",
        f"data.resolution={resolution}", f"train.output_dir={folder / run}",
        f"train.max_train_steps={steps}",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"the launcher failed:\n{done.stdout}")


def configuration(run: Path) -> dict[str, Any]:
    """Of a run, every option."""
    import yaml

    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


def measured(run: Path) -> dict[str, list[float]]:
    """Seconds of the steps of a run, and of the waiting in them."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines][WARM_UP:]
    return {
        "seconds": [step["step_seconds"] for step in steps],
        "waited": [step["step_seconds"] * step["stall_share"] for step in steps],
    }


class Other(Worker):
    """The process of the other side; `about` has milliseconds of its parts, each by itself."""

    def __init__(self, options: dict[str, Any]) -> None:
        model, data = options["model"], options["data"]
        command = [
            sys.executable, HERE / "throughput_mindone.py", DATA / "tiny-flux",
            DATA / "circles", options["train"]["train_batch_size"], data["resolution"],
            data["max_sequence_length"], model["num_double_layers"], model["num_single_layers"],
        ]  # fmt: skip
        super().__init__(list(map(str, command)))

    def block(self, steps: int) -> dict[str, list[float]]:
        """Run so many steps. Returns seconds of them, and of the waiting in them."""
        waited, milliseconds = self.run(steps)
        return {
            "seconds": [time / 1e3 for time in milliseconds[WARM_UP:]],
            "waited": waited[WARM_UP:],
        }


if __name__ == "__main__":
    main()
