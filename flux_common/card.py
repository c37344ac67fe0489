"""What the FLUX recipes say in their model cards (`describe_model`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.training.errors import UserError
from launcher.training.markdown import code
from launcher.training.private import hub_name, public_name

#: Tags that diffusers' FLUX scripts give.
TAGS = ("flux", "flux-diffusers", "text-to-image", "diffusers", "diffusers-training", "mindspore")

_NON_COMMERCIAL = {
    "license": "other",
    "license_name": "flux-1-dev-non-commercial-license",
    "license_link": "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
}
#: By the name of the repository, which a folder that it was downloaded to mostly keeps.
_LICENSES: dict[str, dict[str, str]] = {
    "FLUX.1-dev": _NON_COMMERCIAL,
    "FLUX.1-schnell": {"license": "apache-2.0"},
}
_FIELDS = ("license", "license_name", "license_link")


def base_license(name_or_path: str) -> dict[str, str]:
    """The licence of a base model, as metadata of a model card.

    Args:
        name_or_path: `model.pretrained_model_name_or_path`.

    Returns:
        What the model card in its folder says; else what is known of its name; else
        `license: other` alone.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir() and (stated := _stated(folder / "README.md")):
        return stated
    known = _LICENSES.get(public_name(name_or_path).rpartition("/")[2])
    return dict(known or {"license": "other"})


def _stated(card: Path) -> dict[str, str]:
    """The licence in the metadata of a model card; empty if there is none."""
    import yaml

    if not card.is_file():
        return {}
    head, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    if head.strip() or "\n---" not in rest:
        return {}
    try:
        metadata = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError as error:
        raise UserError(
            f"{card} has metadata that are no YAML, so that the licence of the base model cannot "
            f"be read: {' '.join(str(error).split())}. Mend them, or remove the file."
        ) from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("license"), str):
        return {}
    return {name: str(metadata[name]) for name in _FIELDS if metadata.get(name)}


def description(
    config: Any,
    *,
    kind: str,
    tags: tuple[str, ...],
    usage: str,
    commands: str = "",
    dataset: Mapping[str, str | None],
    details: str = "",
    **metadata: Any,
) -> dict[str, Any]:
    """The arguments of `hooks.types.ModelDescription`.

    Args:
        config: the resolved configuration.
        kind: what it is, such as `ControlNet`.
        tags: beside those of all FLUX models.
        usage: Python code.
        commands: of a shell.
        dataset: the options that may say where the data are, of which one does.
        details: a further sentence, as Markdown.
        metadata: further metadata.
    """
    base = config.model.pretrained_model_name_or_path
    given = next((value for value in dataset.values() if value is not None), None)
    summary = f"{kind} for {code(public_name(base))}, trained with MindSpore. {details}".rstrip()
    license_fields = base_license(base)
    if license_fields == {"license": "other"}:
        summary += (
            "\n\nThe licence of the base model covers these weights too. What it is could not be "
            "found out: see where the base model comes from before you use them or pass them on."
        )
    return dict(
        summary=summary,
        tags=(*TAGS, *tags),
        base_model=hub_name(base),
        dataset=None if given is None else code(public_name(given)),
        dataset_name=None if given is None else hub_name(given),
        metadata={**license_fields, "pipeline_tag": "text-to-image", **metadata},
        usage=usage,
        commands=commands,
    )
