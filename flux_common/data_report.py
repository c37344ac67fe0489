"""What the FLUX recipes add to the report on a data set: tokens, size of the cache, encoding time.

launcher data check --recipe flux_controlnet --config quickstart

Nothing is loaded but the tokenizers and the configuration files of the encoders.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux_common import class_images, pipeline_folder
from launcher.training.data_report import (
    Findings,
    Length,
    Part,
    Tell,
    describe,
    look_at,
    open_rows,
    summary,
)
from launcher.training.data_report.summary import CHARACTERS, distinct_images
from launcher.training.data_report.text import line, number
from launcher.training.dataset import ImageTextTable
from launcher.training.errors import UserError
from launcher.training.image_folder import ImageFolder, open_image_folder
from launcher.training.sizes import size_text

#: Floating-point operations a second that are assumed where no run has measured anything, in
#: units of 10^12: what an accelerator of some 300 at its peak is likely to reach.
ASSUMED_TFLOPS = 100.0
#: CLIP reads as many tokens, and makes one vector of them.
_CLIP_LENGTH = 77
#: What the estimate needs of the encoders' configurations, and what it looks like.
_NEEDED: Mapping[str, Mapping[str, Any]] = {
    "text_encoder": {"hidden_size": 1, "num_hidden_layers": 1, "intermediate_size": 1},
    "text_encoder_2": {"d_model": 1, "d_kv": 1, "num_heads": 1, "num_layers": 1, "d_ff": 1},
    "vae": {
        "in_channels": 1, "latent_channels": 1, "block_out_channels": [1], "layers_per_block": 1,
    },
}  # fmt: skip


# -------------------------------------------------------------------------------------------
# The report
# -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FluxDataReport:
    """What `inspect` found; a `hooks.types.DataReport`."""

    figures: Mapping[str, Any]

    def as_json(self) -> Mapping[str, Any]:
        """All figures."""
        return self.figures

    def text(self) -> str:
        """The figures for a terminal."""
        parts = [describe(part) for part in self.figures["parts"]]
        estimate = _describe_estimate(self.figures["estimate"])
        notes = [f"note: {note}" for note in self.figures["notes"]]
        return "\n\n".join([*parts, "\n".join(estimate), *notes])

    def problems(self) -> list[str]:
        """What keeps a run from starting, one sentence for each part of the data set."""
        return [
            f"{part['rows'] - part['usable_rows']:,} of {number(part['rows'], 'row')} of the data "
            f"set {part['data_set']} cannot be used: "
            + ", ".join(f"{kind['count']:,} x {kind['kind']}" for kind in part["problems"])
            + "."
            for part in self.figures["parts"]
            if part["problems"]
        ]


def inspect(
    parts: Sequence[Part],
    *,
    pretrained_model_name_or_path: str,
    revision: str | None = None,
    sizes: Sequence[tuple[int, int]],
    max_sequence_length: int,
    mixed_precision: str,
    with_empty_prompt: bool,
    with_clip: bool = True,
    cache_dir: Path,
    rates: Mapping[str, Mapping[str, object]] | None = None,
    full: bool = False,
    every: bool = False,
    tflops: float | None = None,
    tell: Tell | None = None,
) -> FluxDataReport:
    """Look at a data set.

    Args:
        parts: the tables, see `open_part`, `instance_part` and `class_part`.
        pretrained_model_name_or_path, revision: the pipeline that has the tokenizers.
        sizes: heights and widths that images are trained at.
        max_sequence_length: T5 tokens per caption.
        mixed_precision: `no`, `fp16` or `bf16`: the dtype of what is kept.
        with_empty_prompt: whether the empty caption is encoded, too.
        with_clip: False where CLIP runs in the training step, so that only its tokens are kept.
        cache_dir: where encodings are kept.
        rates: what runs have measured, as `launcher.training.cache.options.CacheOptions.rates`.
        full, every, tell: as `launcher.training.data_report.look_at`.
        tflops: speed that encoding times are worked out with, 10^12 operations a second; None:
            what runs have measured, else `ASSUMED_TFLOPS`.
    """
    tokenizers, folder, configs, notes = _read_pipeline(pretrained_model_name_or_path, revision)
    lengths = _lengths(tokenizers, max_sequence_length)
    findings = [look_at(part, full=full, every=every, tell=tell) for part in parts]
    figures = [summary(found, sizes=sizes, lengths=lengths, tell=tell) for found in findings]
    estimate = _estimate(
        findings,
        configs,
        sizes=sizes,
        max_sequence_length=max_sequence_length,
        bytes_per_number=4 if mixed_precision == "no" else 2,
        with_empty_prompt=with_empty_prompt,
        with_clip=with_clip,
        rates={}
        if tflops is not None
        else _usable(rates or {}, _about(folder, sizes, max_sequence_length)),
        tflops=ASSUMED_TFLOPS if tflops is None else tflops,
    )
    estimate |= _room(cache_dir)
    return FluxDataReport(
        {
            "samples": max(figure["rows"] + figure["to_make"] for figure in figures),
            "parts": figures,
            "estimate": estimate,
            "notes": notes,
        }
    )


def arguments(config: Any, inspection: Any) -> dict[str, Any]:
    """The arguments of `inspect` that both recipes take from configuration and command line.

    Args:
        config: with the sections `model`, `data` and `precision`.
        inspection: a `hooks.types.Inspection`.
    """
    model, data = config.model, config.data
    return {
        "pretrained_model_name_or_path": model.pretrained_model_name_or_path,
        "revision": model.revision,
        "sizes": data.sizes,
        "max_sequence_length": data.max_sequence_length,
        "mixed_precision": config.precision.mixed_precision,
        "cache_dir": data.cache_root,
        "rates": data.rates(),
        "full": inspection.full,
        "every": inspection.every,
        "tflops": inspection.tflops,
        "tell": inspection.tell,
    }


# -------------------------------------------------------------------------------------------
# The tables of the recipes
# -------------------------------------------------------------------------------------------


def open_part(
    source: Mapping[str, Any],
    image_columns: Sequence[str],
    caption_column: str | None,
    default_caption: str | None = None,
    made: int = 0,
    title: str = "",
) -> Part:
    """A data set with captions, of which single lines may be unreadable.

    Args:
        source: arguments of `launcher.training.tables.open_table`.
        image_columns, caption_column, default_caption: as `ImageTextTable`.
        made: images computed from the first column.

    Raises:
        UserError: it cannot be opened, or has no such column.
    """
    table, unreadable = open_rows(**source)
    columns = ImageTextTable(table, image_columns, caption_column, default_caption)
    return Part(title, columns, unreadable=unreadable, made=made)


def instance_part(
    source: Mapping[str, Any],
    instance_data_dir: str | None,
    instance_prompt: str | None,
    image_column: str,
    caption_column: str | None,
    title: str = "",
) -> Part:
    """The images of a DreamBooth run: a folder, or a data set.

    Raises:
        UserError: it cannot be opened, or has no such column.
    """
    if instance_data_dir is not None:
        if caption_column is None and not Path(instance_data_dir, "metadata.jsonl").is_file():
            limit = source["max_train_samples"]
            folder = open_image_folder(instance_data_dir, "data.instance_data_dir", limit)
            return Part(title, ImageTextTable(folder, [image_column], None, instance_prompt))
        source = {**source, "dataset_name": instance_data_dir}
    return open_part(source, [image_column], caption_column, instance_prompt, title=title)


def class_part(class_data_dir: str, class_prompt: str, num_class_images: int) -> Part:
    """The images of the class, for prior preservation: those that are there.

    Raises:
        UserError: they were made for another prompt, or the folder is none.
    """
    for problem in class_images.problems(class_data_dir, class_prompt, num_class_images):
        raise UserError(problem)
    folder, files, present = class_images.planned_files(class_data_dir, num_class_images)
    table = ImageTextTable(ImageFolder(folder, files), ["image"], None, class_prompt)
    return Part("class images", table, rows=present, to_make=len(files) - len(present))


# -------------------------------------------------------------------------------------------
# Tokenizers and configurations
# -------------------------------------------------------------------------------------------


def _read_pipeline(
    path: str, revision: str | None
) -> tuple[tuple[Any, Any] | None, Path | None, dict[str, Mapping[str, Any]], list[str]]:
    """Tokenizers, the pipeline's folder, the encoders' configurations, and what is to be said of
    those not at hand."""
    from flux_common.loading import load_tokenizers

    notes = []
    tokenizers = None
    try:
        tokenizers = load_tokenizers(path, revision=revision)
    except UserError as error:
        notes.append(
            f"captions are measured in characters, because there are no tokenizers: {error}"
        )
    configs: dict[str, Mapping[str, Any]] = {}
    folder = None
    try:
        folder = pipeline_folder.locate(path, list(_NEEDED), revision, weights=False)
    except UserError:
        pass  # the tokenizers could not be had for the same reason
    else:
        configs = {p: c for p in _NEEDED if (c := _config(folder / p, _NEEDED[p])) is not None}
    if absent := [part for part in _NEEDED if part not in configs]:
        notes.append(
            f"the estimate is made with the sizes of FLUX.1-dev for {', '.join(absent)}, of which "
            f"{path} has no usable config.json."
        )
        for part in absent:
            configs[part] = pipeline_folder.read_json(
                pipeline_folder.FLUX1_DEV / part / "config.json"
            )
    return tokenizers, folder, configs, notes


def _config(folder: Path, needed: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A model's configuration; None if it is not there or has not what is needed."""
    try:
        config = pipeline_folder.read_json(folder / "config.json")
    except UserError:
        return None
    return config if all(_is_like(config.get(n), like) for n, like in needed.items()) else None


def _is_like(value: object, example: object) -> bool:
    if isinstance(example, list):
        return isinstance(value, list) and bool(value) and all(_is_like(v, 1) for v in value)
    return type(value) is int and value > 0


def _lengths(tokenizers: tuple[Any, Any] | None, max_sequence_length: int) -> list[Length]:
    if tokenizers is None:
        return [CHARACTERS]
    clip, t5 = tokenizers
    return [
        Length("T5 tokens", _counter(t5), max_sequence_length, "data.max_sequence_length"),
        Length("CLIP tokens", _counter(clip), _CLIP_LENGTH, "all that CLIP reads"),
    ]


def _counter(tokenizer: Any) -> Callable[[Sequence[str]], list[int]]:
    from flux_common.loading import quiet

    def count(captions: Sequence[str]) -> list[int]:
        with quiet():  # it would say that long ones do not fit
            ids = tokenizer(list(captions), truncation=False, return_attention_mask=False)
        return [len(each) for each in ids["input_ids"]]

    return count


# -------------------------------------------------------------------------------------------
# The estimate
# -------------------------------------------------------------------------------------------


def _estimate(
    findings: Sequence[Findings],
    configs: Mapping[str, Mapping[str, Any]],
    *,
    sizes: Sequence[tuple[int, int]],
    max_sequence_length: int,
    bytes_per_number: int,
    with_empty_prompt: bool,
    with_clip: bool,
    rates: Mapping[str, Mapping[str, Any]],
    tflops: float,
) -> dict[str, Any]:
    """Entries, bytes and seconds of captions and images, for an empty cache."""
    import numpy as np

    clip, t5, vae = (configs[part] for part in _NEEDED)
    captions = len(np.unique(np.concatenate([found.needed_captions() for found in findings])))
    captions += with_empty_prompt
    each = max_sequence_length * t5["d_model"] * bytes_per_number
    each += clip["hidden_size"] * bytes_per_number if with_clip else 4 * _CLIP_LENGTH
    operations = t5_operations(t5, max_sequence_length)
    operations += clip_operations(clip, _CLIP_LENGTH) if with_clip else 0.0
    images, image_bytes, image_operations = 0, 0, 0.0
    for found in findings:
        for size, count in distinct_images(found, sizes):
            images += count
            image_bytes += count * moments_size(vae, size) * bytes_per_number
            image_operations += count * vae_operations(vae, size)
    entries = {
        "text": _entries(captions, captions * each, captions * operations, rates, "text", tflops),
        "image": _entries(images, image_bytes, image_operations, rates, "image", tflops),
    }
    return {
        **entries,
        "with_empty_caption": with_empty_prompt,
        "bytes": sum(entry["bytes"] for entry in entries.values()),
        "seconds": sum(entry["seconds"] for entry in entries.values()),
    }


def _entries(
    count: int,
    size: int,
    operations: float,
    rates: Mapping[str, Mapping[str, Any]],
    kind: str,
    tflops: float,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"entries": count, "bytes": size, "tera_operations": operations / 1e12}
    rate = rates.get(kind)
    if rate is None:
        return entry | {"seconds": operations / (tflops * 1e12), "assumed_tflops": tflops}
    measured = {name: rate[name] for name in ("entries", "seconds", "device")}
    return entry | {"seconds": count * rate["seconds"] / rate["entries"], "measured": measured}


def moments_size(vae: Mapping[str, Any], size: tuple[int, int]) -> int:
    """Numbers in the posterior moments `[2 C, H/8, W/8]` of an image of `size` (height, width)."""
    return 2 * int(vae["latent_channels"]) * (size[0] // 8) * (size[1] // 8)


def t5_operations(t5: Mapping[str, Any], tokens: int) -> float:
    """Floating-point operations of T5's encoder on one caption padded to `tokens`.

    A product of an `[m, k]` and a `[k, n]` matrix counts 2 m k n; everything else is small.
    """
    inner = t5["num_heads"] * t5["d_kv"]
    weights = 4 * t5["d_model"] * inner + (2 + _is_gated(t5)) * t5["d_model"] * t5["d_ff"]
    return float(t5["num_layers"] * (2 * weights * tokens + 4 * inner * tokens**2))


def _is_gated(t5: Mapping[str, Any]) -> bool:
    return str(t5.get("feed_forward_proj", "relu")).startswith("gated")


def clip_operations(clip: Mapping[str, Any], tokens: int) -> float:
    """Floating-point operations of CLIP's text model on one caption."""
    width = clip["hidden_size"]
    weights = 4 * width**2 + 2 * width * clip["intermediate_size"]
    return float(clip["num_hidden_layers"] * (2 * weights * tokens + 4 * width * tokens**2))


def vae_operations(vae: Mapping[str, Any], size: tuple[int, int]) -> float:
    """Floating-point operations of the VAE's encoder on one image of `size` (height, width)."""
    height, width = size
    channels = vae["block_out_channels"]

    def convolution(before: int, after: int, side: int = 3) -> int:
        return 2 * side**2 * before * after * height * width

    def residual(before: int, after: int) -> int:
        shortcut = convolution(before, after, side=1) if before != after else 0
        return convolution(before, after) + convolution(after, after) + shortcut

    total = convolution(vae["in_channels"], channels[0])
    before = channels[0]
    for number_, after in enumerate(channels):
        total += residual(before, after)
        total += (vae["layers_per_block"] - 1) * residual(after, after)
        if number_ < len(channels) - 1:
            height, width = height // 2, width // 2
            total += convolution(after, after)
        before = after
    total += 2 * residual(before, before)
    if vae.get("mid_block_add_attention", True):
        total += 4 * convolution(before, before, side=1) + 4 * before * (height * width) ** 2
    return float(total + convolution(before, 2 * vae["latent_channels"]))


def _about(
    folder: Path | None, sizes: Sequence[tuple[int, int]], length: int
) -> dict[str, dict[str, str]]:
    """What `flux_common.encode` says of encodings like these, where their speed depends on it."""
    model = {"model": os.path.abspath(folder)} if folder else {}
    height, width = sizes[0]
    return {"text": model | {"tokens": str(length)}, "image": model | {"size": f"{height}x{width}"}}


def _usable(
    rates: Mapping[str, Any], about: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """Rates that make sense, of encodings like these. The file is the user's, and nothing depends
    on it."""
    return {
        kind: {"device": "a device that is not named", **rate}
        for kind, rate in rates.items()
        if kind in about
        if isinstance(rate, dict)
        and isinstance(rate.get("about"), dict)
        and about[kind].items() <= rate["about"].items()
        and all(
            isinstance(rate.get(name), (int, float)) and 0 < rate[name] < math.inf
            for name in ("entries", "seconds")
        )
    }


def _room(cache_dir: Path) -> dict[str, Any]:
    """Free bytes where the cache is, or would be."""
    folder = cache_dir.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return {"cache_dir": str(cache_dir), "free_bytes": shutil.disk_usage(existing).free}


# -------------------------------------------------------------------------------------------
# The estimate as text
# -------------------------------------------------------------------------------------------


def _describe_estimate(estimate: Mapping[str, Any]) -> list[str]:
    lines = ["estimate for an empty cache (what is in it already is not encoded again)"]
    for kind, name in (("text", "caption"), ("image", "image")):
        found = estimate[kind]
        amount = f"{number(found['entries'], f'different {name}')}"
        if kind == "text" and estimate["with_empty_caption"]:
            amount += " with the empty one"
        amount += f", {size_text(found['bytes'])}"
        lines.append(line(f"{name}s", f"{amount}, {_time(found)}"))
    lines.append(
        line("together", f"{size_text(estimate['bytes'])}, {duration(estimate['seconds'])}")
    )
    fits = "" if estimate["bytes"] <= estimate["free_bytes"] else ", which is not enough"
    free = size_text(estimate["free_bytes"])
    lines.append(line("free", f"{free} on the disk of {estimate['cache_dir']}{fits}"))
    return lines


def _time(found: Mapping[str, Any]) -> str:
    seconds = duration(found["seconds"])
    if "measured" in found:
        rate = found["measured"]
        each = rate["seconds"] / rate["entries"]
        return f"{seconds} at the measured {each:.2g} s each ({rate['device']})"
    return f"{seconds} at an assumed {found['assumed_tflops']:g} TFLOP/s"


def duration(seconds: float) -> str:
    """`under a second`, `12 s`, `34 min`, `5.6 h`, `12 days`."""
    if seconds < 1:
        return "under a second"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 47.5 else f"{hours / 24:.3g} days"
