"""Which layers get an adapter: names as PEFT's `target_modules` has them, checked.

`to_q` stands for every layer whose name is `to_q` or ends in `.to_q`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from flux_common import pipeline_folder
from launcher.training.errors import UserError
from launcher.training.safetensors_files import read_header


def target_problems(
    pretrained_model_name_or_path: str, targets: Sequence[str], variant: str | None = None
) -> list[str]:
    """What is wrong with the targets, seen from the headers of the transformer's weights.

    Names on the hub are left alone; they are checked when the model is there.
    """
    folder = Path(pretrained_model_name_or_path).expanduser() / "transformer"
    layers = linear_layers(folder, variant)
    return [] if layers is None else unmatched(targets, layers)


def linear_layers(folder: Path, variant: str | None) -> dict[str, tuple[int, int]] | None:
    """(out, in) features of a model's linear layers and embeddings by name, from the headers of
    its weights; None if they are not there, or damaged, of which `pipeline_folder` tells."""
    try:
        headers = [read_header(file) for file in pipeline_folder.weight_files(folder, variant)]
    except (UserError, OSError):
        return None
    return {
        name.removesuffix(".weight"): (info.shape[0], info.shape[1])
        for header in headers
        for name, info in header.items()
        if name.endswith(".weight") and len(info.shape) == 2
    }


def selects_exactly(targets: Sequence[str], layers: Iterable[str]) -> bool:
    """Whether every target stands for one of these layers, and every layer is stood for."""
    layers = list(layers)
    chosen = [name for name in layers if any(_matching(target, [name]) for target in targets)]
    return chosen == layers and all(_matching(target, layers) for target in targets)


def unmatched(targets: Iterable[str], layers: Iterable[str]) -> list[str]:
    """Problems: targets that are not the end of linear layers' names, and only of theirs.

    Args:
        targets: as in PEFT's `target_modules`: `to_q` stands for every layer called `...to_q`.
        layers: the names of the linear layers.
    """
    layers = list(layers)
    split = [layer.split(".") for layer in layers]
    groups = sorted({".".join(parts[:i]) for parts in split for i in range(1, len(parts))})
    endings: dict[str, None] = {}
    for layer in layers:
        # The parts behind the block's number: attn.to_out.0, to_out.0; never 0 alone.
        parts = re.sub(r"^(single_)?transformer_blocks\.\d+\.", "", layer).split(".")
        endings.update((".".join(parts[i:]), None) for i in (0, *_inner(parts)))
    problems = []
    for target in targets:
        group = _matching(target, groups)
        if group is None and _matching(target, layers) is not None:
            continue
        fault = "no linear layer of the model has a name that ends so"
        if group is not None:
            fault = f"{group} has that name and is not a linear layer"
        near = difflib.get_close_matches(target, endings, n=3, cutoff=0.5)
        guess = f"Did you mean {' or '.join(near)}?" if near else ""
        problems.append(
            f"model.lora_layers names {target!r}, but {fault}. "
            + (guess or f"It has {', '.join(list(endings)[:4])} and others.")
        )
    return problems


def _matching(target: str, names: Iterable[str]) -> str | None:
    """The first name that PEFT would take for the target."""
    return next((name for name in names if f".{name}".endswith(f".{target}")), None)


def _inner(parts: Sequence[str]) -> list[int]:
    """Where a name of these parts can be cut; not so that a number is left."""
    return [i for i in range(1, len(parts)) if not parts[i].isdigit()]
