"""Compare a recipe's numbers with reference values from diffusers on torch.

    python benchmarks/parity.py REFERENCE_DIR CASE

REFERENCE_DIR holds `tiny-flux/` (a pipeline folder), `fixed_batch.safetensors`,
`cases/CASE/` (start weights, `outputs.safetensors`, `meta.json`, `params_*.safetensors`) and
perhaps `steps20.safetensors`, as the scripts in `reference/` write them. What is compared is
computed by the recipe's own loading, encoding, collation, loss cell, training step and optimizer.

Prints one JSON object of largest absolute differences (for gradients the worst relative L2 over
the parameters); null where the case has no such data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from launcher import quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reference_dir", type=Path)
    parser.add_argument("case")
    arguments = parser.parse_args()
    quiet.install(verbose=False)

    from launcher.training import device

    device.set_up("auto", 0, "graph")
    print(json.dumps(compare(arguments.reference_dir, arguments.case), indent=2))


def compare(reference_dir: Path, name: str) -> dict[str, float | bool | None]:
    """All figures of one case, by name."""
    folder = reference_dir / "cases" / name
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    if meta.get("recipe") == "flux_lora_dreambooth":
        from parity_lora import LoraCase as Case
    else:
        from parity_controlnet import ControlNetCase as Case
    return Case(reference_dir, folder, meta).compare()


if __name__ == "__main__":
    main()
