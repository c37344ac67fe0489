"""Write schedules.json: the learning rates that diffusers' `get_scheduler` sets.

Needs torch and diffusers, which this project does not depend on; run it in an environment of
its own:

    python tests/data/make_schedules.py
"""

import json
import warnings
from pathlib import Path

import diffusers
import torch
from diffusers.optimization import get_scheduler

CASES = [
    {"schedule": "constant", "base": 1e-5, "total_steps": 10, "warmup_steps": 4},
    {"schedule": "constant_with_warmup", "base": 1e-5, "total_steps": 10, "warmup_steps": 0},
    {"schedule": "constant_with_warmup", "base": 1e-5, "total_steps": 10, "warmup_steps": 1},
    {"schedule": "constant_with_warmup", "base": 5e-6, "total_steps": 10, "warmup_steps": 7},
    {"schedule": "linear", "base": 1e-4, "total_steps": 20, "warmup_steps": 0},
    {"schedule": "linear", "base": 1e-4, "total_steps": 20, "warmup_steps": 6},
    {"schedule": "linear", "base": 1e-4, "total_steps": 5, "warmup_steps": 5},
    {"schedule": "linear", "base": 1e-4, "total_steps": 5, "warmup_steps": 8},
    {"schedule": "cosine", "base": 1e-4, "total_steps": 20, "warmup_steps": 0},
    {"schedule": "cosine", "base": 3e-4, "total_steps": 20, "warmup_steps": 3},
    {"schedule": "cosine", "base": 3e-4, "total_steps": 20, "warmup_steps": 3, "num_cycles": 4},
    {"schedule": "cosine", "base": 1e-4, "total_steps": 5, "warmup_steps": 8},
    {"schedule": "cosine_with_restarts", "base": 1e-4, "total_steps": 20, "warmup_steps": 0},
    {
        "schedule": "cosine_with_restarts",
        "base": 1e-4,
        "total_steps": 40,
        "warmup_steps": 4,
        "num_cycles": 3,
    },
    {"schedule": "polynomial", "base": 1e-4, "total_steps": 20, "warmup_steps": 0},
    {"schedule": "polynomial", "base": 1e-4, "total_steps": 20, "warmup_steps": 5, "power": 2.0},
    {"schedule": "polynomial", "base": 2e-3, "total_steps": 20, "warmup_steps": 1, "power": 0.5},
    {"schedule": "polynomial", "base": 1e-4, "total_steps": 5, "warmup_steps": 8},
    {
        "schedule": "piecewise_constant",
        "base": 1e-4,
        "total_steps": 12,
        "warmup_steps": 3,
        "step_rules": "1:4,0.1:9,0.01",
    },
    {
        "schedule": "piecewise_constant",
        "base": 1e-4,
        "total_steps": 12,
        "warmup_steps": 0,
        "step_rules": "0.5:8,2:3,0.25:10,0",
    },
    {
        "schedule": "piecewise_constant",
        "base": 1e-4,
        "total_steps": 4,
        "warmup_steps": 0,
        "step_rules": "0.5",
    },
]
PAST_THE_END = 12


def rates(case):
    """The rate of each step, from 0 to some steps past the end."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=case["base"])
    scheduler = get_scheduler(
        case["schedule"],
        optimizer,
        step_rules=case.get("step_rules"),
        num_warmup_steps=case["warmup_steps"],
        num_training_steps=case["total_steps"],
        num_cycles=case.get("num_cycles", 1),
        power=case.get("power", 1.0),
    )
    for _ in range(case["total_steps"] + PAST_THE_END):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


if __name__ == "__main__":
    warnings.simplefilter("error")
    reference = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cases": [{**case, "rates": list(rates(case))} for case in CASES],
    }
    path = Path(__file__).with_name("schedules.json")
    path.write_text(json.dumps(reference, indent=1) + "\n")
