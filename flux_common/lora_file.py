"""LoRA files in diffusers' layout: reading their headers, and whether they fit a base model.

Names are `PART.LAYER.lora_A.weight` (`[rank, in]`) and `PART.LAYER.lora_B.weight` (`[out, rank]`),
where PART is `transformer` or `text_encoder`. `lora_alpha` stands in the header since diffusers
0.35; a file without has it equal to the rank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux_common.adapter_targets import linear_layers, selects_exactly
from launcher.training import safetensors_files
from launcher.training.errors import UserError

#: diffusers' name of the file that `FluxPipeline.load_lora_weights` looks for.
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"

#: The key of PEFT's settings in the file's header, as JSON.
METADATA_KEY = "lora_adapter_metadata"

_OPTION = "model.lora_weights"
_NAME = re.compile(r"(transformer|text_encoder)\.(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class LoraPart:
    """The adapters of one model of the pipeline.

    Attributes:
        file: where they are.
        part: `transformer` or `text_encoder`.
        rank: of every adapter.
        lora_alpha: they are scaled by `lora_alpha / rank`.
        layers: (out, in) features of the adapted layer, by its name.
    """

    file: Path
    part: str
    rank: int
    lora_alpha: float
    layers: Mapping[str, tuple[int, int]]


def read(path: str) -> dict[str, LoraPart]:
    """What is in a LoRA file, by part, from its header.

    Args:
        path: the file, or a folder that holds `pytorch_lora_weights.safetensors`.

    Raises:
        UserError: there is no such file, or it is no LoRA in diffusers' layout with one rank.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / WEIGHTS_FILE
    if not file.is_file():
        raise UserError(
            f"{_OPTION} is {path!r}, and there is no file {file}. Give a LoRA file, or the folder "
            f"of a run that holds {WEIGHTS_FILE}."
        )
    shapes = {name: info.shape for name, info in safetensors_files.read_header(file).items()}
    matches = {name: _NAME.fullmatch(name) for name in shapes}
    strange = [name for name, match in matches.items() if match is None]
    if strange or not shapes:
        example = f"it has {strange[0]!r}" if strange else "it is empty"
        raise UserError(
            f"{_OPTION} is {path!r}, which is not a LoRA as diffusers saves it, with names such as "
            f"transformer.transformer_blocks.0.attn.to_q.lora_A.weight: {example}. Convert it, for "
            f"example by loading it in diffusers' FluxPipeline and saving it with "
            f"save_lora_weights."
        )
    about = _settings(file)
    parts: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {}
    for name, match in matches.items():
        assert match is not None
        part, layer, letter = match.groups()
        parts.setdefault(part, {}).setdefault(layer, {})[letter] = shapes[name]
    return {part: _part(file, part, layers, about) for part, layers in parts.items()}


def _settings(file: Path) -> dict[str, Any]:
    text = safetensors_files.read_metadata(file).get(METADATA_KEY, "{}")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(
            f"the LoRA {file} has settings in its header, {METADATA_KEY}, which is not JSON. "
            f"Download or copy it again."
        ) from None


def _part(
    file: Path, part: str, pairs: Mapping[str, Mapping[str, tuple[int, ...]]], about: Any
) -> LoraPart:
    ranks, layers = set(), {}
    for layer, pair in pairs.items():
        shapes = pair.get("A", ()), pair.get("B", ())
        if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][1]:
            raise UserError(
                f"the LoRA {file} is damaged: lora_A and lora_B of {part}.{layer} are of shapes "
                f"{' and '.join(str(list(s)) if s else 'missing' for s in shapes)}, which do not "
                f"belong together."
            )
        ranks.add(shapes[0][0])
        layers[layer] = (shapes[1][0], shapes[0][1])
    patterns = [about.get(f"{part}.{name}") for name in ("rank_pattern", "alpha_pattern")]
    if len(ranks) > 1 or any(patterns):
        raise UserError(
            f"the LoRA {file} has adapters of different ranks or scales ({part}: ranks "
            f"{', '.join(map(str, sorted(ranks)))}); this recipe trains those of one."
        )
    (rank,) = ranks
    return LoraPart(file, part, rank, about.get(f"{part}.lora_alpha", rank), layers)


def metadata(settings: Mapping[str, Any]) -> dict[str, str]:
    """What goes into the header, as diffusers 0.35 writes it.

    Args:
        settings: PEFT's `LoraConfig` by part.
    """
    about: dict[str, Any] = {}
    for part, config in settings.items():
        about |= {
            f"{part}.r": config.r,
            f"{part}.lora_alpha": config.lora_alpha,
            f"{part}.target_modules": sorted(config.target_modules),
            f"{part}.rank_pattern": {},
            f"{part}.alpha_pattern": {},
        }
    return {METADATA_KEY: json.dumps(about, indent=2, sort_keys=True)}


def problems(
    path: str,
    pretrained_model_name_or_path: str,
    variant: str | None,
    *,
    trained: Iterable[str],
    rank: int | None = None,
    lora_alpha: int | None = None,
    targets: Sequence[str] | None = None,
) -> list[str]:
    """What would keep a LoRA from being trained further, seen from headers.

    Args:
        path: of the LoRA.
        pretrained_model_name_or_path: the base model; on the hub, it is compared when loaded.
        trained: the parts whose adapters the run trains.
        rank, lora_alpha, targets: what was asked for in so many words, which must be the file's.
    """
    try:
        parts = read(path)
    except UserError as error:
        return [str(error)]
    found = []
    trained = set(trained)
    if "transformer" not in parts:
        found.append(f"the LoRA {path} has no adapters on the transformer, which this run trains.")
    if "text_encoder" in parts and "text_encoder" not in trained:
        found.append(
            f"the LoRA {path} has adapters on text_encoder too, which this run would leave out. "
            f"Set model.train_text_encoder=true."
        )
    if "text_encoder" in trained and "text_encoder" not in parts:
        found.append(
            f"model.train_text_encoder is true, but the LoRA {path} has no adapters on "
            f"text_encoder. Set model.train_text_encoder=false."
        )
    for part, lora in parts.items():
        folder = Path(pretrained_model_name_or_path).expanduser() / part
        layers = linear_layers(folder, variant)
        if layers is not None:
            found += fit_problems(lora, layers, pretrained_model_name_or_path)
    main = parts.get("transformer")
    if main is not None:
        for name, asked, has in (
            ("rank", rank, main.rank),
            ("lora_alpha", lora_alpha, main.lora_alpha),
        ):
            if asked is not None and asked != has:
                found.append(
                    f"model.{name} is {asked}, but the LoRA {path} has {has:g}, and is trained "
                    f"with that. Leave model.{name} out, or set it to {has:g}."
                )
        if targets is not None and not selects_exactly(targets, main.layers):
            found.append(
                f"model.lora_layers is {','.join(targets)}, which are not the {len(main.layers)} "
                f"layers that the LoRA {path} is for. Leave model.lora_layers out."
            )
    return found


def fit_problems(lora: LoraPart, layers: Mapping[str, tuple[int, int]], base: str) -> list[str]:
    """Whether a LoRA was made for a model with these linear layers ((out, in) by name)."""
    absent = [name for name in lora.layers if name not in layers]
    other = [
        f"{name} is {_size(size)} there, {_size(layers[name])} here"
        for name, size in lora.layers.items()
        if name in layers and layers[name] != size
    ]
    if not absent and not other:
        return []
    faults = []
    if absent:
        faults.append(f"{len(absent)} of its {len(lora.layers)} layers are not in it ({absent[0]})")
    if other:
        faults.append(f"{len(other)} have another size ({other[0]})")
    return [
        f"the LoRA {lora.file} was made for another {lora.part} than that of {base}: "
        f"{' and '.join(faults)}. Give one that was made for this base model, or leave {_OPTION} "
        f"out to begin new adapters."
    ]


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} to {size[0]}"
