"""The model card of a run: README.md in the format of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.hub.finished import FinishedRun
from launcher.hub.training_table import number, training
from launcher.hub.versions import versions
from launcher.training import atomic
from launcher.training.markdown import block, code, escaped, row
from launcher.training.private import last_part

if TYPE_CHECKING:
    from hooks.types import Config, ModelDescription
    from launcher.plugins import Plugins

CARD = "README.md"
#: A card with this line is written anew; one without it is somebody's own.
MARK = (
    "<!-- Written by `launcher push` from the files of the run, and written anew each time. "
    "Without this line it stays as it is. -->"
)
#: Hooks that decide what is trained, and on what.
_SHAPING = ("build_dataset", "build_models", "configure_trainable", "export_weights")


def is_own(path: Path) -> bool:
    """True for a card that somebody has written, or taken over."""
    return path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")


def write(
    run: FinishedRun,
    plugins: Plugins,
    config: Config,
    description: ModelDescription,
    model_id: str,
) -> bool:
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
    atomic.write_text(path, text(run, plugins, config, description, model_id))
    return True


def text(
    run: FinishedRun,
    plugins: Plugins,
    config: Config,
    description: ModelDescription,
    model_id: str,
) -> str:
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
        *_doubts(plugins),
        *_images(run),
        "## Training",
        _table(training(run, plugins, config, description)),
        *_validation(run),
        *_usage(run, description),
        *_versions(run.provenance),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def metadata(description: ModelDescription) -> dict[str, Any]:
    """The metadata at the card's head."""
    found: dict[str, Any] = dict(description.metadata)
    if description.base_model is not None:
        found["base_model"] = description.base_model
    if description.dataset_name is not None:
        found["datasets"] = [description.dataset_name]
    found["tags"] = list(dict.fromkeys([*description.tags, "mindspore"]))
    return found


def _doubts(plugins: Plugins) -> Iterator[str]:
    """Where a variant makes something else of the model than its description knows of."""
    variants = plugins.answered_by_variants()
    if plugins.owner_of("describe_model") in variants:
        return
    for variant, hooks in variants.items():
        if changed := [code(hook) for hook in hooks if hook in _SHAPING]:
            yield (
                f"The variant {code(last_part(variant))} answers {', '.join(changed)}, and not "
                "`describe_model`: what is said here of the model, its data and its use is the "
                "recipe's, and may not be so."
            )


def _images(run: FinishedRun) -> Iterator[str]:
    if run.grid is not None:
        yield f"![control, target, and samples as the training went on]({run.grid})"


def _validation(run: FinishedRun) -> Iterator[str]:
    shown = {k: v for k, v in run.figures.items() if k not in ("step", "seconds")}
    if shown:
        yield f"## Validation after step {run.figures.get('step')}"
        yield _table((escaped(name.replace("_", " ")), number(v)) for name, v in shown.items())


def _usage(run: FinishedRun, description: ModelDescription) -> Iterator[str]:
    if description.usage:
        yield "## Use"
        yield "In diffusers:"
        yield block(description.usage, "python")
        if description.commands:
            yield "On Ascend NPUs, with the package flux-controlnet-plugin and MindSpore:"
            yield block(description.commands, "bash")
    if any(name.startswith("ema/") for name in run.exported):
        yield f"The averaged weights are in {code('ema/')}, in the same layout."


def _versions(provenance: Mapping[str, Any]) -> Iterator[str]:
    rows = [(name, escaped(version)) for name, version in versions(provenance).items()]
    if "python" in provenance:
        rows.insert(0, ("Python", escaped(str(provenance["python"].get("version", "")))))
    if "started" in provenance:
        rows.append(("started", escaped(str(provenance["started"]))))
    if rows:
        yield "## Versions"
        yield _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(row(*cells) for cells in rows)])
