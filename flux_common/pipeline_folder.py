"""Checking the folder of a FLUX.1 pipeline before anything is loaded.

    python -c "from flux_common.pipeline_folder import problems; print(problems('my/FLUX.1-dev'))"

Reads configuration files and the headers of safetensors files, a few kilobytes in all, and
imports no framework. What it finds are the mistakes that otherwise show minutes later, or never:
a missing or truncated file, weights of another architecture, parts that do not fit each other.
Of names on the hub, the configuration files are fetched and checked; `locate` downloads the rest
later, and then the same checks apply.

Where only sizes are wanted (`launcher.training.sizes_only`), neither weights nor tokenizers have to
be there, and nothing is downloaded: the configurations of FLUX.1-dev, which are part of this
package, stand in for a pipeline that is not on this machine.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.training import sizes_only
from launcher.training.errors import UserError
from launcher.training.safetensors_files import TensorInfo, read_header

#: The parts of a FLUX.1 pipeline: the subfolders in diffusers' layout.
PARTS = (
    "tokenizer",
    "tokenizer_2",
    "text_encoder",
    "text_encoder_2",
    "vae",
    "transformer",
    "scheduler",
)

_EXAMPLE = "Give a FLUX.1 pipeline, such as black-forest-labs/FLUX.1-dev or a folder made from it."
_AGAIN = "Download or copy the folder again."

#: The configurations of FLUX.1-dev's parts, without weights.
FLUX1_DEV = Path(__file__).parent / "flux1_dev"


# -------------------------------------------------------------------------------------------
# The whole pipeline
# -------------------------------------------------------------------------------------------


def problems(
    path: str,
    parts: Iterable[str] = PARTS,
    revision: str | None = None,
    variant: str | None = None,
    *,
    option: str = "model.pretrained_model_name_or_path",
) -> list[str]:
    """Look for what would keep a pipeline from being loaded and trained.

    Args:
        path: a folder, or a name on the hub, of which the configuration files are fetched and
            checked.
        parts: the subfolders that are needed, of `PARTS`; they are also checked against each
            other.
        revision, variant: as they will be given to the loading functions.
        option: the name of the option that `path` comes from, for the messages.

    Returns:
        Problems, each in sentences with the way out; empty if there are none.
    """
    if sizes_only.is_wanted():
        parts = [part for part in parts if part in MODELS or part == "scheduler"]
    if not is_local(path):
        return _hub_problems(path, list(parts), revision)
    try:
        return _local_problems(path, list(parts), revision, variant, option)
    except PermissionError as error:
        return [f"{option} is {path!r}, of which this user may not read {error.filename}."]


def _local_problems(
    path: str, parts: list[str], revision: str | None, variant: str | None, option: str
) -> list[str]:
    wrong = folder_problem(path, option, "a FLUX.1 pipeline in diffusers' layout")
    if wrong is not None:
        return [wrong]
    folder = Path(path).expanduser()
    wrong = _layout_problem(folder, option) or _pipeline_class_problem(folder)
    if wrong is not None:
        return [wrong]

    found: list[str] = []
    if revision is not None:
        found.append(
            f"model.revision is {revision!r}, but {option} is the local folder {path}, which has "
            f"no revisions. Leave out model.revision, or give a hub name."
        )
    absent = [part for part in parts if not (folder / part).is_dir()]
    if absent:
        found.append(_absent_parts(folder, absent))
    configs: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        if part in absent:
            continue
        if part in MODELS:
            wrongs, config = model_problems(folder / part, MODELS[part], variant)
        elif part == "scheduler":
            wrongs, config = _scheduler_problems(folder / part)
        else:
            wrongs, config = _tokenizer_problems(folder / part)
        found += wrongs
        if config is not None:
            configs[part] = config
    found += _misfits(folder, configs)
    return found


def _hub_problems(name: str, parts: list[str], revision: str | None) -> list[str]:
    """What the configuration files on the hub tell. The weights come, and are checked, later."""
    try:
        folder = locate(name, parts, revision, weights=False)
    except UserError as error:
        return [str(error)]
    wrong = _pipeline_class_problem(folder)
    if wrong is not None:
        return [wrong]
    found: list[str] = []
    configs: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        if part not in MODELS:
            continue
        wrongs, config = config_problems(folder / part, MODELS[part])
        found += wrongs
        if config is not None:
            configs[part] = config
    return found + _misfits(folder, configs)


def _layout_problem(folder: Path, option: str) -> str | None:
    """What is said when the folder is something else altogether, with a guess at what."""
    if any((folder / part).is_dir() for part in PARTS):
        return None
    start = f"{option} is {str(folder)!r}, which is not a pipeline folder in diffusers' layout"
    if (folder / "snapshots").is_dir():
        inner = sorted(p for p in (folder / "snapshots").iterdir() if p.is_dir())
        if inner:
            return f"{start} but the hub's cache of one. Give {str(inner[-1])!r}."
    if folder.name in PARTS and any(
        (folder.parent / p).is_dir() for p in PARTS if p != folder.name
    ):
        return f"{start} but one part of it. Give the folder above: {str(folder.parent)!r}."
    inner = sorted(p for p in folder.iterdir() if (p / "model_index.json").is_file())
    if inner:
        return f"{start}, but has one in it. Give {str(inner[0])!r}."
    weights = sorted(p.name for p in folder.iterdir() if _is_checkpoint(p))
    if weights:
        return f"{start}: it holds {_some(weights)}, but no subfolders. {_SINGLE_FILE}"
    return (
        f"{start}: it has none of the subfolders {', '.join(PARTS)}. Give the folder that holds "
        f"model_index.json."
    )


def _pipeline_class_problem(folder: Path) -> str | None:
    if not (folder / "model_index.json").is_file():
        return None  # only DiffusionPipeline needs it; the parts are loaded by themselves
    try:
        class_name = read_json(folder / "model_index.json").get("_class_name")
    except UserError as error:
        return str(error)
    if not isinstance(class_name, str) or re.fullmatch(r"Flux(?!2)\w*", class_name):
        return None
    return (
        f"{folder} holds a {class_name} (model_index.json), not FLUX.1, which this recipe trains. "
        f"{_EXAMPLE}"
    )


def _absent_parts(folder: Path, absent: Sequence[str]) -> str:
    siblings = [p.name for p in folder.iterdir() if p.is_dir() and p.name not in PARTS]
    near = {part: difflib.get_close_matches(part, siblings, 1, 0.7) for part in absent}
    hints = [f" (is {names[0]!r} meant to be {part!r}?)" for part, names in near.items() if names]
    noun = "subfolder" if len(absent) == 1 else "subfolders"
    return (
        f"{folder} has no {noun} {', '.join(absent)}{''.join(hints)}, which a FLUX.1 pipeline "
        f"must have. {_AGAIN}"
    )


# -------------------------------------------------------------------------------------------
# Local or on the hub
# -------------------------------------------------------------------------------------------

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_local(name_or_path: str) -> bool:
    """Whether this is a path, existing or not, rather than a name on the hub (`org/name`)."""
    return (
        os.path.exists(os.path.expanduser(name_or_path))
        or name_or_path.startswith(("/", "./", "../", "~"))
        or not _HUB_NAME.fullmatch(name_or_path)
    )


def folder_problem(path: str, option: str, what: str) -> str | None:
    """Say what is wrong if `path` is not a folder.

    Args:
        path: a local path, in the sense of `is_local`.
        option: the option that it comes from.
        what: what should be in the folder.
    """
    if not path.strip():
        return f"{option} is empty. Give the folder of {what}, or its name on the hub (org/name)."
    folder = Path(path).expanduser()
    if folder.is_dir():
        return None
    if folder.is_file():
        if _is_checkpoint(folder):
            return f"{option} is {path!r}, a single file. Give the folder of {what}. {_SINGLE_FILE}"
        return f"{option} is {path!r}, a file. Give the folder of {what}."
    there = f"there is no folder {path!r}"
    if not folder.is_absolute():
        there += f" in {os.getcwd()}, where the launcher was started"
    if "/" not in path:
        there += ", and names on the hub have the form org/name"
    return f"{option}: {there}.{_nearby(folder)} Give the folder of {what}, or its hub name."


def _nearby(folder: Path) -> str:
    """' Did you mean ...?' with folders of a similar name; or where the path stops to exist."""
    parent = folder.parent
    if not parent.is_dir():
        above = next(p for p in parent.parents if p.is_dir() or p == p.parent)
        known = str(above) not in (".", "/")
        return f" Of this path, only {str(above)!r} exists." if known else ""
    try:
        siblings = [p.name for p in parent.iterdir() if p.is_dir()]
    except OSError:
        return ""
    by_lower = {name.lower(): name for name in siblings}
    near = [by_lower[n] for n in difflib.get_close_matches(folder.name.lower(), by_lower, 3, 0.6)]
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(str(parent / name)) for name in near)}?"


_SINGLE_FILE = (
    "Single-file checkpoints (flux1-dev.safetensors and the like) hold their weights under other "
    "names and cannot be used; diffusers' layout has a folder with config.json for each part."
)


def _is_checkpoint(path: Path) -> bool:
    return path.is_file() and path.suffix in (
        ".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf",
    )  # fmt: skip


def locate(
    name_or_path: str,
    parts: Sequence[str] | None,
    revision: str | None = None,
    variant: str | None = None,
    *,
    weights: bool = True,
) -> Path:
    """The local folder of a pipeline; what is on the hub is downloaded into the hub's cache.

    Args:
        name_or_path: a folder (returned as it is, existing or not) or a hub name.
        parts: the subfolders needed; None for a model that lies at the top of its repository.
        revision: branch, tag or commit on the hub.
        variant: only the weights of this variant are downloaded; None: those without one.
        weights: False downloads the configuration and the tokenizers only.

    Raises:
        UserError: the hub cannot be reached, has no such repository or revision, or wants a
            login.
    """
    if sizes_only.is_wanted() and parts is not None:
        return _locate_configs(name_or_path, parts, revision)
    if is_local(name_or_path):
        return Path(name_or_path).expanduser()
    from huggingface_hub import errors, snapshot_download

    where = [f"{part}/" for part in parts] if parts is not None else [""]
    weights = weights and not sizes_only.is_wanted()
    label = f".{variant}" if variant else ""
    # A dot before the end marks a variant: model.fp16.safetensors.
    wanted = [f"*{label}.safetensors", f"*{label}-*-of-*.safetensors"] if weights else []
    others = ["*.json", "*.txt", "*.model"] if parts is not None else ["*.json"]
    try:
        return Path(
            snapshot_download(
                name_or_path,
                revision=revision,
                allow_patterns=[w + pattern for w in where for pattern in (*wanted, *others)],
                ignore_patterns=[] if variant else [w + "*.*.safetensors" for w in where],
            )
        )
    except errors.GatedRepoError:
        wrong = (
            "is gated: accept its licence on its page on the hub, then log in with "
            "`huggingface-cli login` or set HF_TOKEN"
        )
    except errors.RevisionNotFoundError:
        wrong = f"has no revision {revision!r} on the hub: check model.revision"
    except errors.RepositoryNotFoundError:
        wrong = (
            "is not on the hub, or is private: check the name; for a private repository log in "
            "with `huggingface-cli login` or set HF_TOKEN"
        )
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError):
        wrong = (
            "is not in the hub's cache on this machine, and the hub cannot be reached: check the "
            "network and HF_HUB_OFFLINE, or download the repository elsewhere and give its folder"
        )
    except errors.HfHubHTTPError as error:
        wrong = f"cannot be downloaded from the hub: {str(error).splitlines()[0]}"
    except OSError as error:  # a full disk, a connection that broke
        wrong = f"cannot be downloaded from the hub: {error.strerror or str(error)[:300]}"
    near = _nearby(Path(name_or_path))
    raise UserError(
        f"{name_or_path!r} {wrong}. It was taken for a name on the hub because there is no such "
        f"folder under {os.getcwd()}.{near}"
    )


def _locate_configs(name_or_path: str, parts: Sequence[str], revision: str | None) -> Path:
    """A folder with the configurations of a pipeline's parts, found without the hub."""
    if name_or_path == sizes_only.NOT_GIVEN:
        sizes_only.note("no pipeline is given: the sizes are those of FLUX.1-dev")
        return FLUX1_DEV
    if is_local(name_or_path):
        return Path(name_or_path).expanduser()
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name_or_path,
                revision=revision,
                allow_patterns=[f"{part}/*.json" for part in parts],
                local_files_only=True,
            )
        )
        if all(any((folder / part).glob("*.json")) for part in parts):
            return folder
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        pass  # not there, which is what is said next
    sizes_only.note(f"{name_or_path} is not on this machine: the sizes are those of FLUX.1-dev")
    return FLUX1_DEV


# -------------------------------------------------------------------------------------------
# Models: config.json and weights
# -------------------------------------------------------------------------------------------

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Model:
    """What the check of a model's folder needs to know of its architecture.

    Attributes:
        class_name: the class, as config.json states it.
        defaults: whole numbers in config.json that the shapes depend on, with the class's defaults.
        shapes: shapes of some decisive weights, from the configuration.
        layers: prefixes of numbered layers, with the option that says how many there are.
    """

    class_name: str
    defaults: Mapping[str, int]
    shapes: Callable[[Mapping[str, Any]], Shapes]
    layers: Mapping[str, str]


def _flux_shapes(config: Mapping[str, Any]) -> Shapes:
    """Weights that FLUX's transformer and its ControlNet have in common."""
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    return {
        "x_embedder.weight": (inner, config["in_channels"]),
        "context_embedder.weight": (inner, config["joint_attention_dim"]),
        "time_text_embed.text_embedder.linear_1.weight": (inner, config["pooled_projection_dim"]),
    }


def _transformer_shapes(config: Mapping[str, Any]) -> Shapes:
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    out = (config.get("out_channels") or config["in_channels"]) * config["patch_size"] ** 2
    return {**_flux_shapes(config), "proj_out.weight": (out, inner)}


def _controlnet_shapes(config: Mapping[str, Any]) -> Shapes:
    shapes = _flux_shapes(config)
    return {**shapes, "controlnet_x_embedder.weight": shapes["x_embedder.weight"]}


def _vae_shapes(config: Mapping[str, Any]) -> Shapes:
    widths = config.get("block_out_channels") or [64]
    return {
        "encoder.conv_in.weight": (widths[0], config["in_channels"], 3, 3),
        "encoder.conv_out.weight": (2 * config["latent_channels"], widths[-1], 3, 3),
        "decoder.conv_in.weight": (widths[-1], config["latent_channels"], 3, 3),
    }


_FLUX_DEFAULTS = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
}

MODELS: Mapping[str, Model] = {
    "text_encoder": Model(
        "CLIPTextModel",
        {
            "vocab_size": 49408,
            "hidden_size": 512,
            "num_hidden_layers": 12,
            "max_position_embeddings": 77,
        },
        lambda c: {
            "text_model.embeddings.token_embedding.weight": (c["vocab_size"], c["hidden_size"]),
            "text_model.embeddings.position_embedding.weight": (
                c["max_position_embeddings"],
                c["hidden_size"],
            ),
        },
        {"text_model.encoder.layers.": "num_hidden_layers"},
    ),
    "text_encoder_2": Model(
        "T5EncoderModel",
        {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "num_heads": 8, "num_layers": 6},
        lambda c: {
            "shared.weight": (c["vocab_size"], c["d_model"]),
            "encoder.block.0.layer.0.SelfAttention.q.weight": (
                c["num_heads"] * c["d_kv"],
                c["d_model"],
            ),
        },
        {"encoder.block.": "num_layers"},
    ),
    "vae": Model("AutoencoderKL", {"in_channels": 3, "latent_channels": 4}, _vae_shapes, {}),
    "transformer": Model(
        "FluxTransformer2DModel",
        _FLUX_DEFAULTS,
        _transformer_shapes,
        {"transformer_blocks.": "num_layers", "single_transformer_blocks.": "num_single_layers"},
    ),
}

CONTROLNET = Model(
    "FluxControlNetModel",
    _FLUX_DEFAULTS,
    _controlnet_shapes,
    {
        "transformer_blocks.": "num_layers",
        "single_transformer_blocks.": "num_single_layers",
        "controlnet_blocks.": "num_layers",
        "controlnet_single_blocks.": "num_single_layers",
    },
)


def model_problems(
    folder: Path, model: Model, variant: str | None
) -> tuple[list[str], Mapping[str, Any] | None]:
    """Check one model's folder.

    Returns:
        The problems, and the configuration as `config_problems`.
    """
    found, config = config_problems(folder, model)
    if config is None or sizes_only.is_wanted():
        return found, config
    try:
        tensors = _tensors(folder, variant)
    except UserError as error:
        return [*found, str(error)], config
    return found + _weight_problems(folder, model, config, tensors), config


def config_problems(folder: Path, model: Model) -> tuple[list[str], Mapping[str, Any] | None]:
    """Check a model's config.json.

    Returns:
        The problems, and the configuration with the class's defaults filled in; None for it if
        it cannot be read or is another architecture's.
    """
    file = folder / "config.json"
    try:
        stored = read_json(file)
    except UserError as error:
        return [str(error)], None
    wrong = _class_problem(file, stored, model)
    if wrong is not None:
        return [wrong], None

    # transformers' and diffusers' classes take a missing option's default.
    config = {**model.defaults, **stored}
    found = [
        f"{file}: {name} is {config[name]!r}, not a whole number. {_AGAIN}"
        for name in model.defaults
        if type(config[name]) is not int or config[name] < 0
    ]
    if "quantization_config" in stored:
        found.append(
            f"{folder} holds quantized weights (quantization_config in config.json), which cannot "
            f"be trained with. Give the weights in bf16, fp16 or fp32."
        )
    if found:
        return found, None
    if "axes_dims_rope" in stored or model.class_name.startswith("Flux"):
        axes = config.setdefault("axes_dims_rope", [16, 56, 56])
        if not _are_whole(axes) or sum(axes) != config["attention_head_dim"]:
            found.append(
                f"{file}: axes_dims_rope is {axes!r}, which does not add up to attention_head_dim, "
                f"{config['attention_head_dim']}. {_AGAIN}"
            )
        config.setdefault("guidance_embeds", False)
    if model.class_name == "AutoencoderKL":
        found += _vae_config_problems(file, config)
        if found:
            return found, None
    return found, config


def _class_problem(file: Path, stored: Mapping[str, Any], model: Model) -> str | None:
    names = stored.get("_class_name", stored.get("architectures"))
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or model.class_name in names:
        return None  # not stated: the weights will tell
    # T5's encoder is the same in the full model; only the decoder is left out on loading.
    if model.class_name == "T5EncoderModel" and stored.get("model_type") == "t5":
        return None
    return (
        f"{file} describes a {', '.join(map(str, names))}, not a {model.class_name}, as FLUX.1 has "
        f"there. {_EXAMPLE}"
        if model is not CONTROLNET
        else f"{file} describes a {', '.join(map(str, names))}, not a {model.class_name}. Give a "
        f"ControlNet for FLUX.1 in diffusers' layout, or leave the option out to make one from "
        f"the transformer."
    )


def _vae_config_problems(file: Path, config: Mapping[str, Any]) -> list[str]:
    found = []
    widths = config.get("block_out_channels")
    if not isinstance(widths, list) or len(widths) != 4 or not _are_whole(widths):
        found.append(
            f"{file}: block_out_channels is {widths!r}; FLUX.1's VAE has four blocks and makes one "
            f"latent of 8x8 pixels. {_EXAMPLE}"
        )
    for name in ("scaling_factor", "shift_factor"):
        value = config.get(name)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            found.append(
                f"{file}: {name} is {value!r}, not a number; FLUX.1's VAE has one (the VAEs of "
                f"earlier models have no shift_factor). {_EXAMPLE}"
            )
    return found


def _weight_problems(
    folder: Path, model: Model, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> list[str]:
    """Compare what the files hold with what config.json says of it."""
    if any(name.startswith(("double_blocks.", "single_blocks.")) for name in tensors) or any(
        ".double_blocks." in name for name in tensors
    ):
        return [
            f"the weights in {folder} have the names of the original single-file checkpoint "
            f"(double_blocks...), not diffusers'. {_SINGLE_FILE}"
        ]
    dtypes = sorted({t.dtype for t in tensors.values()} - {"F32", "F16", "BF16", "F64", "I64"})
    if dtypes:
        return [
            f"the weights in {folder} are stored as {', '.join(dtypes)}, that is, quantized. Give "
            f"weights in bf16, fp16 or fp32."
        ]
    faults = []
    for name, shape in model.shapes(config).items():
        if name not in tensors:
            faults.append(f"{name} is missing")
        elif tensors[name].shape != shape:
            faults.append(f"{name} has the shape {list(tensors[name].shape)}, not {list(shape)}")
    for prefix, option in model.layers.items():
        held = _count_layers(tensors, prefix)
        if held != config[option]:
            faults.append(f"there are {held} layers {prefix}N, but {option} is {config[option]}")
    if "guidance_embeds" in config and model.class_name.startswith("Flux"):
        held_guidance = any(n.startswith("time_text_embed.guidance_embedder.") for n in tensors)
        if held_guidance != bool(config["guidance_embeds"]):
            faults.append(
                f"guidance_embeds is {str(bool(config['guidance_embeds'])).lower()}, but weights "
                f"for guidance are {'there' if held_guidance else 'not there'}"
            )
    if not faults:
        return []
    return [
        f"the weights in {folder} are not those that its config.json describes: "
        f"{_some(faults, separator='; ')}. Check that both come from the same download."
    ]


def _count_layers(tensors: Iterable[str], prefix: str) -> int:
    numbers = {
        int(found.group(1))
        for found in (re.match(re.escape(prefix) + r"(\d+)\.", name) for name in tensors)
        if found is not None
    }
    return len(numbers)


# -------------------------------------------------------------------------------------------
# Weight files
# -------------------------------------------------------------------------------------------


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of a model: one, or the shards that its index names. None at all where
    only sizes are wanted.

    Raises:
        UserError: none are there, or a shard is missing.
    """
    if sizes_only.is_wanted():
        return []
    index, files = _find_weights(folder, variant)
    return files if index is None else [folder / name for name in sorted(_shards(index))]


def _tensors(folder: Path, variant: str | None) -> dict[str, TensorInfo]:
    """Everything the weight files hold, by name, their headers checked against the index."""
    index, files = _find_weights(folder, variant)
    if index is None:
        return read_header(files[0])
    tensors: dict[str, TensorInfo] = {}
    for shard, names in sorted(_shards(index).items()):
        header = read_header(folder / shard)
        lacking = sorted(names - header.keys())
        if lacking:
            raise UserError(
                f"{folder / shard} does not hold {_some(lacking)}, as {index.name} says it does. "
                f"The files come from different downloads. {_AGAIN}"
            )
        tensors.update(header)
    return tensors


def _find_weights(folder: Path, variant: str | None) -> tuple[Path | None, list[Path]]:
    """(index, []) of sharded weights or (None, [file])."""
    label = f".{variant}" if variant else ""
    for stem in ("diffusion_pytorch_model", "model"):
        single = folder / f"{stem}{label}.safetensors"
        indexes = [folder / f"{stem}.safetensors.index{label}.json"]
        if variant:  # where older versions put the variant
            indexes.append(folder / f"{stem}.safetensors{label}.index.json")
            indexes.append(folder / f"{stem}{label}.safetensors.index.json")
        index = next((path for path in indexes if path.is_file()), None)
        if index is not None and not (stem == "model" and single.is_file()):
            return index, []
        if single.is_file():
            return None, [single]
    raise UserError(_no_weights(folder, variant))


def _no_weights(folder: Path, variant: str | None) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    wanted = f"weights of the variant {variant!r}" if variant else "weights"
    start = f"{folder} has no {wanted} in safetensors format"
    parsed = [re.fullmatch(r"(?:diffusion_pytorch_)?model(.*)\.safetensors", n) for n in names]
    labels = {re.sub(r"-\d+-of-\d+", "", m.group(1)).lstrip(".") for m in parsed if m is not None}
    if labels - {variant or ""}:
        others = sorted(labels - {""})
        if "" in labels:
            return f"{start}, but has some without a variant. Leave out model.variant."
        return f"{start}, but has the variant {' and '.join(others)}. Set model.variant to it."
    if any(n.endswith((".bin", ".pt", ".pth", ".ckpt")) for n in names):
        old = next(n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt")))
        return (
            f"{start}, only {old}, an older format that can run code when it is opened and is not "
            f"read. Convert it: load it with diffusers or transformers on torch and call "
            f"save_pretrained."
        )
    if any(n.endswith(".safetensors") for n in names):
        other = next(n for n in names if n.endswith(".safetensors"))
        return (
            f"{start} under a name of diffusers or transformers (there is {other}). Give the "
            f"folder as diffusers saves it, or rename the file."
        )
    shown = _some(names) if names else "nothing"
    return f"{start}; it holds {shown}. {_AGAIN}"


def _shards(index: Path) -> dict[str, set[str]]:
    """Names of the weights by shard, every shard being there."""
    weight_map = read_json(index).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise UserError(f"{index} is damaged: it has no weight_map. {_AGAIN}")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(shard, set()).add(name)
    missing = sorted(shard for shard in shards if not (index.parent / shard).is_file())
    if missing:
        raise UserError(
            f"{index.parent} lacks {len(missing)} of {len(shards)} weight files that {index.name} "
            f"names: {_some(missing)}. {_AGAIN}"
        )
    return shards


# -------------------------------------------------------------------------------------------
# Tokenizers and scheduler
# -------------------------------------------------------------------------------------------

_TOKENIZERS = {
    # part: (name of its class without "Fast", files that will do)
    "tokenizer": ("CLIPTokenizer", (("tokenizer.json",), ("vocab.json", "merges.txt"))),
    "tokenizer_2": ("T5Tokenizer", (("tokenizer.json",), ("spiece.model",))),
}


def _tokenizer_problems(folder: Path) -> tuple[list[str], Mapping[str, Any] | None]:
    """Check a tokenizer; its "configuration" is the highest token number and the length."""
    class_name, choices = _TOKENIZERS[folder.name]
    try:
        stored = read_json(folder / "tokenizer_config.json")
        if not any(all((folder / name).is_file() for name in names) for names in choices):
            wanted = " or ".join(" with ".join(names) for names in choices)
            return [f"{folder} has no {wanted}. {_AGAIN}"], None
        highest = _highest_token(folder)
    except UserError as error:
        return [str(error)], None
    found = stored.get("tokenizer_class")
    if isinstance(found, str) and found.removesuffix("Fast") != class_name:
        return [
            f"{folder / 'tokenizer_config.json'} describes a {found}, not a {class_name}, as "
            f"FLUX.1 has there. {_EXAMPLE}"
        ], None
    return [], {"highest_token": highest, "model_max_length": stored.get("model_max_length")}


def _highest_token(folder: Path) -> int | None:
    """The highest token number; None where only a sentencepiece model tells."""
    numbers: list[int] = []
    try:
        if (folder / "tokenizer.json").is_file():
            stored = read_json(folder / "tokenizer.json")
            vocabulary = stored["model"]["vocab"]
            if isinstance(vocabulary, dict):
                numbers += vocabulary.values()
            else:
                numbers.append(len(vocabulary) - 1)
            numbers += (token["id"] for token in stored.get("added_tokens", ()))
        elif (folder / "vocab.json").is_file():
            numbers += read_json(folder / "vocab.json").values()
        return max(numbers) if numbers else None
    except (KeyError, TypeError):
        raise UserError(f"the vocabulary in {folder} is damaged. {_AGAIN}") from None


def _scheduler_problems(folder: Path) -> tuple[list[str], Mapping[str, Any] | None]:
    file = folder / "scheduler_config.json"
    try:
        stored = read_json(file)
    except UserError as error:
        return [str(error)], None
    class_name = stored.get("_class_name")
    if class_name != "FlowMatchEulerDiscreteScheduler":
        return [
            f"{file} describes a {class_name}, not a FlowMatchEulerDiscreteScheduler, as FLUX.1 "
            f"has there. {_EXAMPLE}"
        ], None
    steps = stored.get("num_train_timesteps", 1000)
    if type(steps) is not int or steps < 1:
        return [f"{file}: num_train_timesteps is {steps!r}, not a positive number."], None
    return [], stored


# -------------------------------------------------------------------------------------------
# Parts against each other
# -------------------------------------------------------------------------------------------


def _misfits(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong between parts that are right by themselves."""
    found = []
    parts_from = f"{folder} is put together from parts of different pipelines: "
    transformer = configs.get("transformer")
    clip, t5, vae = (configs.get(part) for part in ("text_encoder", "text_encoder_2", "vae"))
    if transformer and vae and transformer["in_channels"] != 4 * vae["latent_channels"]:
        channels, latent = transformer["in_channels"], vae["latent_channels"]
        hint = ""
        if channels in (8 * latent, 24 * latent):
            hint = (
                " This is a FLUX.1 Canny, Depth or Fill model, which takes an image besides the "
                "latents; train on FLUX.1-dev or -schnell."
            )
        found.append(
            f"{folder}: the transformer takes {channels} channels (in_channels), but the VAE's "
            f"{latent} latent channels in 2x2 patches make {4 * latent}.{hint}"
        )
    if transformer and t5 and transformer["joint_attention_dim"] != t5["d_model"]:
        found.append(
            f"{parts_from}the transformer expects T5 embeddings of width "
            f"{transformer['joint_attention_dim']} (joint_attention_dim), but text_encoder_2 makes "
            f"{t5['d_model']} (d_model)."
        )
    if transformer and clip and transformer["pooled_projection_dim"] != clip["hidden_size"]:
        found.append(
            f"{parts_from}the transformer expects pooled CLIP embeddings of width "
            f"{transformer['pooled_projection_dim']} (pooled_projection_dim), but text_encoder "
            f"makes {clip['hidden_size']} (hidden_size)."
        )
    for tokenizer_part, encoder_part in (
        ("tokenizer", "text_encoder"),
        ("tokenizer_2", "text_encoder_2"),
    ):
        tokenizer, encoder = configs.get(tokenizer_part), configs.get(encoder_part)
        if not tokenizer or not encoder:
            continue
        highest = tokenizer["highest_token"]
        if highest is not None and highest >= encoder["vocab_size"]:
            found.append(
                f"{parts_from}{tokenizer_part} has token numbers up to {highest}, but "
                f"{encoder_part} has embeddings for {encoder['vocab_size']} tokens (vocab_size)."
            )
        length, positions = tokenizer["model_max_length"], encoder.get("max_position_embeddings")
        if type(length) is int and positions is not None and length > positions:
            found.append(
                f"{parts_from}{tokenizer_part} makes up to {length} tokens (model_max_length), "
                f"but {encoder_part} has {positions} positions (max_position_embeddings)."
            )
    return found


# -------------------------------------------------------------------------------------------


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file. UserError if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing. {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file} is damaged: not valid JSON, line {error.lineno}: {error.msg}. {_AGAIN}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is damaged: not text. {_AGAIN}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: not a JSON object. {_AGAIN}")
    return content


def _are_whole(values: object) -> bool:
    return isinstance(values, (list, tuple)) and all(type(v) is int and v > 0 for v in values)


def _some(names: Sequence[str], limit: int = 4, separator: str = ", ") -> str:
    shown = separator.join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
