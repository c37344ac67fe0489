"""The model card of a run: README.md in the format of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.hub.finished import FinishedRun
from launcher.training import atomic
from launcher.training.markdown import block, code, escaped, row

if TYPE_CHECKING:
    from hooks.types import Config, ModelDescription

CARD = "README.md"
#: A card with this line is written anew; one without it is somebody's own.
MARK = (
    "<!-- Written by `launcher push` from the files of the run, and written anew each time. "
    "Without this line it stays as it is. -->"
)
#: Distributions that results depend on.
_VERSIONS = ("flux-controlnet-plugin", "mindspore", "mindone", "transformers", "numpy")


def is_own(path: Path) -> bool:
    """True for a card that somebody has written, or taken over."""
    return path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")


def write(run: FinishedRun, config: Config, description: ModelDescription, model_id: str) -> bool:
    """Put the card into the run's folder, unless somebody has written one there.

    Args:
        model_id: its name on the hub.

    Returns:
        Whether it was written.

    Raises:
        OSError: it cannot be.
    """
    path = run.path / CARD
    if is_own(path):
        return False
    atomic.write_text(path, text(run, config, description, model_id))
    return True


def text(run: FinishedRun, config: Config, description: ModelDescription, model_id: str) -> str:
    """The whole card, from its metadata on."""
    import yaml

    head = yaml.safe_dump(
        metadata(description), sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    parts = [
        f"---\n{head}---",
        MARK,
        f"# {escaped(model_id.rpartition('/')[2])}",
        description.summary,
        *_images(run),
        "## Training",
        _table(_training(run, config, description)),
        *_validation(run),
        *_usage(run, description, model_id),
        *_license(description.metadata),
        *_versions(run.provenance),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def metadata(description: ModelDescription) -> dict[str, Any]:
    """The metadata at the card's head."""
    found: dict[str, Any] = {"library_name": "diffusers", **description.metadata}
    if description.base_model is not None:
        found["base_model"] = description.base_model
    if description.dataset_name is not None:
        found["datasets"] = [description.dataset_name]
    found["tags"] = list(dict.fromkeys([*description.tags, "mindspore"]))
    return found


def _images(run: FinishedRun) -> Iterator[str]:
    if run.grid is not None:
        yield f"![control, target, and samples as the training went on]({run.grid})"


def _training(
    run: FinishedRun, config: Config, description: ModelDescription
) -> Iterator[tuple[str, str]]:
    train, precision = config.train, config.precision
    if description.dataset is not None:
        yield "data set", description.dataset
    yield "steps", f"{run.step:,}"
    world = run.provenance.get("world_size", 1)
    batch = train.train_batch_size * train.gradient_accumulation_steps * world
    made_of = f"{train.train_batch_size} a micro-batch, {train.gradient_accumulation_steps} of them"
    yield "batch", f"{batch} samples ({made_of}" + (f", {world} processes)" if world > 1 else ")")
    warm_up = f", {train.lr_warmup_steps} steps of warm-up" if train.lr_warmup_steps else ""
    yield "learning rate", f"{train.learning_rate:g}, {code(train.lr_scheduler)}{warm_up}"
    yield "optimizer", code(config.optimizer.name)
    kept = precision.trainable_params
    mixed = precision.mixed_precision
    yield (
        "precision",
        f"computed in {'fp32' if mixed == 'no' else mixed}, trained parameters kept in "
        f"{mixed if kept == 'half' else 'fp32'}",
    )
    if train.ema_decay is not None:
        yield "moving average", f"decay {train.ema_decay:g}; its weights are in {code('ema/')}"
    yield "seed", str(train.seed)
    if run.last_step:
        yield "loss of the last step", _number(run.last_step.get("loss"))
    if "device" in run.provenance:
        yield "device", escaped(str(run.provenance["device"]))


def _validation(run: FinishedRun) -> Iterator[str]:
    shown = {k: v for k, v in run.figures.items() if k not in ("step", "seconds")}
    if shown:
        yield f"## Validation after step {run.figures.get('step')}"
        yield _table((escaped(name.replace("_", " ")), _number(v)) for name, v in shown.items())


def _usage(run: FinishedRun, description: ModelDescription, model_id: str) -> Iterator[str]:
    if description.usage:
        yield "## Use"
        yield "In diffusers:"
        yield block(description.usage, "python")
        if description.commands:
            yield "On Ascend NPUs, with the package flux-controlnet-plugin and MindSpore:"
            yield block(description.commands, "bash")
    if any(name.startswith("ema/") for name in run.exported):
        yield f"The averaged weights are in {code('ema/')}, in the same layout."


def _license(metadata: Mapping[str, Any]) -> Iterator[str]:
    name = metadata.get("license_name") or metadata.get("license")
    link = metadata.get("license_link")
    if name and name != "other":
        yield "## Licence"
        where = f", see <{link}>" if link else ""
        yield f"These weights are under the licence of the base model, {escaped(name)}{where}."


def _versions(provenance: Mapping[str, Any]) -> Iterator[str]:
    rows = list(_version_rows(provenance))
    if rows:
        yield "## Versions"
        yield _table(rows)


def _version_rows(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    packages = provenance.get("packages", {})
    known = {name.lower().replace("_", "-"): version for name, version in packages.items()}
    if "python" in provenance:
        yield "Python", escaped(str(provenance["python"].get("version", "")))
    for name in _VERSIONS:
        if name in known:
            yield name, escaped(str(known[name]))
    if "started" in provenance:
        yield "started", escaped(str(provenance["started"]))


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(row(*cells) for cells in rows)])


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "not finite" if value is None else escaped(str(value))
