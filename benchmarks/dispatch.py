"""What a hook call costs more than a plain call: `python benchmarks/dispatch.py`.

Calls `train_step` and `on_step_end` through `Plugins.hook`, with functions that do nothing, and
the same functions directly; and `train_step` with the launcher's default behind it, to see whether
a variant that owns the hook makes the call slower. No framework is imported. Prints a table in
microseconds per call and, as the last line, the same as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launcher.plugins import load, locate

OWNER = """
from hooks import hookimpl

@hookimpl
def train_step(state, batch):
    return batch

@hookimpl
def on_step_end(state, output):
    pass
"""

WRAPPER = """
from hooks import hookimpl

@hookimpl(wrapper=True)
def train_step():
    return (yield)

@hookimpl(wrapper=True)
def on_step_end():
    return (yield)
"""


def microseconds(call: Callable[[], Any], number: int = 20_000, repeat: int = 7) -> float:
    """Time per call: the fastest of several rounds, which the machine disturbed least."""
    return min(timeit.repeat(call, number=number, repeat=repeat)) / number * 1e6


def main() -> None:
    recipe = sys.argv[1] if len(sys.argv) > 1 else "flux_controlnet"
    with tempfile.TemporaryDirectory() as folder:
        owner, wrapper = Path(folder, "owner.py"), Path(folder, "wrapper.py")
        owner.write_text(OWNER)
        wrapper.write_text(WRAPPER)
        default = load(recipe).hook
        plain = load(recipe, [str(owner)]).hook
        wrapped = load(recipe, [str(owner), str(wrapper)]).hook
        module = next(m for m in sys.modules.values() if _file(m) == locate(str(owner)))

        step = {"state": object(), "batch": object()}
        ready = SimpleNamespace(compiled_step=lambda batch, rate: batch, learning_rate=0.0)
        whole = {"state": ready, "batch": object()}
        end = {"state": object(), "output": object()}
        results = {
            "train_step": {
                "plain call": microseconds(lambda: module.train_step(**step)),
                "hook": microseconds(lambda: plain.train_step(**step)),
                "hook, wrapped": microseconds(lambda: wrapped.train_step(**step)),
                "hook, default": microseconds(lambda: default.train_step(**whole)),
            },
            "on_step_end": {
                "plain call": microseconds(lambda: module.on_step_end(**end)),
                "hook": microseconds(lambda: plain.on_step_end(**end)),
                "hook, wrapped": microseconds(lambda: wrapped.on_step_end(**end)),
            },
        }

    print(f"{'':<14}" + "".join(f"{way:>16}" for way in results["train_step"]))
    for hook, times in results.items():
        print(f"{hook:<14}" + "".join(f"{value:>13.2f} us" for value in times.values()))
    print(json.dumps({"microseconds_per_call": results}))


def _file(module: Any) -> str | None:
    return getattr(module, "__file__", None)


if __name__ == "__main__":
    main()
