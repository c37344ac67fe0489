"""What rounding does to small updates: `python benchmarks/rounding.py`.

A network of two layers that is a little off is trained towards the right one, at a learning rate
as in fine-tuning, with its parameters stored in float32, or in half precision by each optimizer
that offers it. Everything is computed in float32, on the same batches, so that storage is all that
differs. Prints the loss on data not trained on, at the start and at the end, and how many
parameters are not where they started. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WIDTH = 64
SHAPES = {"in": (WIDTH, WIDTH), "bias": (WIDTH,), "out": (WIDTH, WIDTH)}
RATE = 3e-5
OFF = 0.02  # how far the network is from the right one, per parameter

CASES = {
    "float32": ("adamw", {}),
    "master copy": ("adamw_bf16", {}),
    "nearest": ("adamw_upcast", {}),
    "stochastic": ("adamw_upcast", {"stochastic_rounding": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="steps of each run (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of network and data (0)")
    arguments = parser.parse_args()

    from launcher import quiet

    quiet.install(verbose=False)
    from launcher.training import device

    device.set_up("CPU", 0, "graph")
    results = []
    print(f"{'stored in':<12}{'rounding':<14}{'loss':>10}{'of start':>10}{'moved':>8}")
    for dtype in ("float32", "float16", "bfloat16"):
        for case in CASES:
            if (dtype == "float32") != (case == "float32"):
                continue
            start, end, moved = train(dtype, case, arguments.steps, arguments.seed)
            row = dict(dtype=dtype, case=case, start=start, end=end, moved=moved)
            results.append(row)
            print(f"{dtype:<12}{case:<14}{end:>10.6f}{end / start:>9.1%}{moved:>8.0%}", flush=True)
    print(json.dumps({"steps": arguments.steps, "seed": arguments.seed, "results": results}))


def train(dtype: str, case: str, steps: int, seed: int) -> tuple[float, float, float]:
    """Loss before and after, and the part of the parameters that changed."""
    import mindspore as ms
    import numpy as np
    from mindspore import nn, ops

    from launcher.training.optim import build_optimizer
    from launcher.training.random import generator

    class Network(nn.Cell):
        def __init__(self, weights, dtype):
            super().__init__()
            self.weights = ms.ParameterTuple(
                [ms.Parameter(ms.Tensor(value, dtype), name=n) for n, value in weights.items()]
            )

        def construct(self, x, y):
            first, bias, second = self.weights
            hidden = ops.relu(ops.matmul(x, first.astype(ms.float32)) + bias.astype(ms.float32))
            return ops.square(ops.matmul(hidden, second.astype(ms.float32)) - y).mean()

    class Step(nn.Cell):
        def __init__(self, network, optimizer):
            super().__init__(auto_prefix=False)
            self.optimizer = optimizer
            self.gradients = ms.value_and_grad(network, None, weights=optimizer.parameters)

        def construct(self, x, y):
            loss, gradients = self.gradients(x, y)
            return ops.depend(loss, self.optimizer(gradients))

    def weights_of(network):
        return np.concatenate([p.astype(ms.float32).asnumpy().ravel() for p in network.weights])

    draw = generator(seed, "network")
    right, wrong = {}, {}
    for n, shape in SHAPES.items():
        right[n] = draw.standard_normal(shape).astype(np.float32) / WIDTH**0.5
        wrong[n] = right[n] + OFF * draw.standard_normal(shape).astype(np.float32)

    def batch(name, number, size=64):
        x = generator(seed, name, number).standard_normal((size, WIDTH), dtype=np.float32)
        hidden = np.maximum(x @ right["in"] + right["bias"], 0)
        return ms.Tensor(x), ms.Tensor(hidden @ right["out"])

    network = Network(wrong, getattr(ms, dtype))
    name, options = CASES[case]
    optimizer = build_optimizer(
        name, list(network.weights), beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
        seed=seed, **options,
    )  # fmt: skip
    optimizer.learning_rate.set_data(ms.Tensor(RATE, ms.float32))
    step = Step(network, optimizer)
    held_out = batch("held out", 0, 4096)
    before = weights_of(network)
    start = float(network(*held_out))
    for number in range(steps):
        step(*batch("train", number))
    return start, float(network(*held_out)), float((weights_of(network) != before).mean())


if __name__ == "__main__":
    main()
