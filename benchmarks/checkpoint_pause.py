"""What a checkpoint costs the training loop: `python benchmarks/checkpoint_pause.py`.

A real step (graph mode, AdamW) of a multi-layer perceptron with as much state as asked for, and the
launcher's Saver. Measured in turns, medians of each:

- the pause: how long `Saver.take` keeps the loop; beside it, one copy of the state in host memory,
  `{name: parameter.asnumpy().copy()}`, with the memory already there (`numpy.copyto`) as well. The
  first ones of a run, which have to ask the system for their memory, are told by themselves;
- a step while a checkpoint is being written, beside a step while none is.

Prints each figure with its limit; the last line is the same as JSON. Exit code 1: over a limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
#: Limits: of the pause, in copies of the state; of a step beside a save, in steps without.
PAUSE, STEP = 1.5, 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=2048, help="of the layers (2048)")
    parser.add_argument("--layers", type=int, default=8, help="how many (8)")
    parser.add_argument("--turns", type=int, default=7, help="checkpoints (7)")
    parser.add_argument("--folder", help="where they go for the time being")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = measure(arguments.width, arguments.layers, arguments.turns, Path(folder))
    print(f"state: {results['bytes'] / 1e6:,.0f} MB")
    copying, pause = results["copy"], results["pause"]
    ratio = results["pause_ratio"] = pause / copying
    print(f"pause {pause:.3f} s, copy {copying:.3f} s: {ratio:.2f}x (limit {PAUSE})")
    print(
        f"      the first of the run: pause {results['first_pause']:.3f} s, copy "
        f"{results['first_copy']:.3f} s"
    )
    print(f"      a copy into memory that is there already: {results['copy_again']:.3f} s")
    busy, idle = results["step_while_writing"], results["step"]
    ratio = results["step_ratio"] = busy / idle
    print(f"step {idle:.3f} s, while writing {busy:.3f} s: {ratio:.2f}x (limit {STEP})")
    print(f"      writing took {results['writing']:.2f} s, {results['steps']:.0f} steps")
    print(json.dumps(results))
    return int(results["pause_ratio"] > PAUSE or results["step_ratio"] > STEP)


def measure(width: int, layers: int, turns: int, folder: Path) -> dict[str, float]:
    """Medians, in seconds."""
    import mindspore as ms
    from mindspore import nn, ops

    from hooks.types import Models
    from launcher.checkpointing import Contents, Saver
    from launcher.rundir import RunDir
    from launcher.training import device
    from launcher.training.optim import AdamW
    from launcher.training.step import TrainStep
    from launcher.training.weights import write_parameters

    device.set_up("CPU", 0, "graph")

    class Perceptron(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.SequentialCell([nn.Dense(width, width) for _ in range(layers)])

        def construct(self, x):
            return ops.square(self.body(x)).mean()

    model = Perceptron()
    step = TrainStep(model, AdamW(list(model.trainable_params())), max_grad_norm=1.0)
    x = np.random.default_rng(0).standard_normal((256, width)).astype(np.float32)
    models = Models(model=model)
    contents = Contents.of(models, step, None)
    state = SimpleNamespace(step=0, epoch=0, memory={})
    options = SimpleNamespace(checkpointing_steps=1, every_minutes=None, checkpoints_total_limit=1)

    def export(config, models, directory, values):
        write_parameters(
            directory / "weights.safetensors",
            {p.name: p for p in models["model"].get_parameters()},
            values=values,
        )

    timed: dict[str, list[float]] = {}

    def clock(name: str, call) -> None:
        started = time.perf_counter()
        call()
        timed.setdefault(name, []).append(time.perf_counter() - started)

    with RunDir.claim(folder / "run", "") as run_dir:
        saver = Saver(
            options,
            run_dir,
            contents,
            partial(export, config=None),
            {},
            "",
            0,
            lambda path: None,
            print,
        )
        with saver:
            buffers: dict[str, np.ndarray] = {}
            for turn in range(turns + 1):
                for _ in range(4):
                    clock("step", lambda: step([[x]], 1e-4))
                clock("copy", lambda: buffers.update(_copies(contents.tensors)))
                clock("copy_again", lambda: _copy_into(contents.tensors, buffers))
                state.step = turn + 1
                clock("pause", lambda: saver.take(state, {}))
                started, steps = time.perf_counter(), 0
                while not saver.is_free:
                    clock("step_while_writing", lambda: step([[x]], 1e-4))
                    steps += 1
                timed.setdefault("writing", []).append(time.perf_counter() - started)
                timed.setdefault("steps", []).append(steps)
                if turn == 0:  # compiles, and memory is asked of the system
                    first = {f"first_{name}": timed[name][0] for name in ("pause", "copy")}
                    timed.clear()
    ms.runtime.synchronize()
    medians = {name: statistics.median(values) for name, values in timed.items()}
    size = sum(a.nbytes for a in buffers.values())
    return {"bytes": size, **first, **medians}


def _copies(tensors) -> dict[str, np.ndarray]:
    return {name: tensor.asnumpy().copy() for name, tensor in tensors.items()}


def _copy_into(tensors, buffers) -> None:
    for name, tensor in tensors.items():
        np.copyto(buffers[name], tensor.asnumpy())


if __name__ == "__main__":
    sys.exit(main())
