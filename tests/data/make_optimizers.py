"""Write optimizers.npz: a hundred steps of the reference optimizers, in float64.

Needs torch and the CAME authors' package, which this project does not depend on; run it in an
environment of its own (`pip install torch==2.13.0 came-pytorch==0.1.3 numpy`):

    python tests/data/make_optimizers.py

The loss pulls each parameter to a target that changes every step, by gradients whose norm is
sometimes above the clipping threshold and sometimes below.
"""

from pathlib import Path

import numpy as np
import torch
from came_pytorch import CAME

STEPS = 100
SHAPES = {"tall": (6, 4), "wide": (3, 5), "conv": (2, 3, 2, 2), "gamma": (5,), "bias": (4,)}
BETAS, BETA3, EPS, DECAY, CLIP, MOMENTUM = (0.9, 0.999), 0.9999, 1e-8, 0.1, 1.0, 0.95


def muon(parameters):
    """Matrices by torch's Muon, at AdamW's root mean square; the rest by AdamW."""
    matrices = [p for p in parameters if p.ndim == 2]
    rest = [p for p in parameters if p.ndim != 2]
    return [
        torch.optim.Muon(
            matrices, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, betas=BETAS, eps=EPS, weight_decay=DECAY),
    ]


OPTIMIZERS = {
    "adamw": lambda ps: [torch.optim.AdamW(ps, betas=BETAS, eps=EPS, weight_decay=DECAY)],
    "came": lambda ps: [CAME(ps, lr=1.0, betas=(*BETAS, BETA3), weight_decay=DECAY)],
    "muon": muon,
}


def train(make, start, targets, rates):
    """The parameters after 1, 10 and 100 steps."""
    parameters = {name: torch.nn.Parameter(torch.tensor(start[name]).double()) for name in start}
    optimizers = make(list(parameters.values()))
    kept = {}
    for t, rate in enumerate(rates):
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = float(rate)
        loss = sum(
            ((p - torch.tensor(targets[name][t])) ** 2).sum() / 2 for name, p in parameters.items()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        for optimizer in optimizers:
            optimizer.step()
        if t + 1 in (1, 10, STEPS):
            for name, p in parameters.items():
                kept[f"{name}/{t + 1}"] = p.detach().numpy().copy()
    return kept


def main():
    # The iteration of torch's Muon runs in bfloat16; here in float64.
    torch.Tensor.bfloat16 = torch.Tensor.clone
    rng = np.random.default_rng(0)
    start = {n: rng.standard_normal(s).astype(np.float32) / 4 for n, s in SHAPES.items()}
    sizes = 10 ** rng.uniform(-2, 0, STEPS)
    targets = {}
    for name, shape in SHAPES.items():
        noise = rng.standard_normal((STEPS, *shape)) * sizes.reshape(-1, *[1] * len(shape))
        targets[name] = (start[name] + noise).astype(np.float32)
    rates = (1e-2 * np.minimum(1, np.arange(1, STEPS + 1) / 20)).astype(np.float32)
    out = {"rates": rates}
    out |= {f"start/{name}": value for name, value in start.items()}
    out |= {f"targets/{name}": value for name, value in targets.items()}
    for optimizer, make in OPTIMIZERS.items():
        kept = train(make, start, targets, rates)
        out |= {f"{optimizer}/{name}": value for name, value in kept.items()}
    np.savez_compressed(Path(__file__).with_name("optimizers.npz"), **out)


if __name__ == "__main__":
    main()
