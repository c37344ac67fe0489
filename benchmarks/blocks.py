"""A worker process that runs blocks of steps on demand, so that two of them can take turns.

Standard library only: the worker's side runs in either environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Worker:
    """A worker as its parent sees it.

    Args:
        command: a program that calls `serve`.
    """

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about: dict[str, Any] = self._receive()

    def run(self, steps: int) -> tuple[list[float], list[float]]:
        """Run so many steps. Returns their losses and times in milliseconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self._receive()
        return answer["losses"], answer["milliseconds"]

    def cpu_seconds(self) -> float:
        """Processor time that the worker has used, over all its threads."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker {self.process.args} failed; see above")
        return json.loads(line)


def busy_seconds() -> float:
    """Processor time that everything on the machine has used, over all its processors."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    values = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    times = dict(zip(names, map(int, values)))
    ticks = sum(times.values()) - times["idle"] - times["iowait"]
    return ticks / os.sysconf("SC_CLK_TCK")


def serve(prepare: Callable[[], tuple[Callable[[int], float], dict[str, Any]]]) -> None:
    """Be a worker, until standard input ends.

    Args:
        prepare: returns the step (number of the step to its loss, on the host when it returns)
            and what is to be known about this side.
    """
    # What the frameworks print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    step, about = prepare()
    answer(**about)
    number = 0
    for line in sys.stdin:
        losses, milliseconds = [], []
        for _ in range(int(line)):
            start = time.perf_counter()
            losses.append(step(number))
            milliseconds.append((time.perf_counter() - start) * 1e3)
            number += 1
        answer(losses=losses, milliseconds=milliseconds)
