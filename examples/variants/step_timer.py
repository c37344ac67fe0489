"""Write how long steps take to step_times.json in the run's folder.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/step_timer.py

An observer: it is told what happens and changes nothing. With any recipe. The first step, which
sets things up, is counted by itself; the compilation comes before it.
"""

import json
import statistics
import time
from itertools import pairwise

from hooks import hookimpl

_times = []


@hookimpl
def on_train_start():
    _times[:] = [time.perf_counter()]


@hookimpl
def on_step_end():
    _times.append(time.perf_counter())


@hookimpl
def on_train_end(state):
    first, *others = [after - before for before, after in pairwise(_times)]
    report = {"steps": len(others) + 1, "first_s": first}
    if others:
        report |= {"median_s": statistics.median(others), "longest_s": max(others)}
    (state.output_dir / "step_times.json").write_text(json.dumps(report, indent=2) + "\n")
