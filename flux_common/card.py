"""What the FLUX recipes say in their model cards (`describe_model`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.training.errors import UserError
from launcher.training.markdown import code, escaped
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
#: T5 tokens that diffusers' pipelines give a prompt by default.
_TOKENS = 512


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
    stated = {name: str(metadata[name]) for name in _FIELDS if metadata.get(name)}
    if stated.get("license_name") == _NON_COMMERCIAL["license_name"]:
        return dict(_NON_COMMERCIAL)
    if "://" not in stated.get("license_link", ""):  # of a file beside that card
        stated.pop("license_link", None)
    return stated


def description(
    config: Any,
    *,
    kind: str,
    relation: str,
    tags: tuple[str, ...],
    usage: str,
    commands: str = "",
    details: str = "",
    **metadata: Any,
) -> dict[str, Any]:
    """The arguments of `hooks.types.ModelDescription`.

    Args:
        config: the resolved configuration, as `describe_model` gets it.
        kind: what it is, such as `A ControlNet`.
        relation: to the base model, as the hub has it: `adapter` or `finetune`.
        tags: beside those of all FLUX models.
        usage: Python code.
        commands: of a shell.
        details: further sentences, as Markdown.
        metadata: further metadata.
    """
    base = config.model.pretrained_model_name_or_path
    sources = (getattr(config.data, name) for name in config.data.sources)
    given = next((value for value in sources if value is not None), None)
    license_fields = base_license(base)
    summary = f"{kind} for {code(public_name(base))}, trained with MindSpore. {details}".rstrip()
    return dict(
        summary=f"{summary}\n\n{_about_license(license_fields)}",
        tags=(*TAGS, *tags),
        base_model=hub_name(base),
        dataset=None if given is None else code(public_name(given)),
        dataset_name=None if given is None else hub_name(given),
        metadata={
            "library_name": "diffusers",
            **license_fields,
            **({} if hub_name(base) is None else {"base_model_relation": relation}),
            "pipeline_tag": "text-to-image",
            **metadata,
        },
        usage=usage,
        commands=commands,
    )


def _about_license(fields: Mapping[str, str]) -> str:
    name = fields.get("license_name") or fields["license"]
    if name == "other":
        return (
            "The licence of the base model covers these weights too. What it is could not be found "
            "out: see where the base model comes from before you use them or pass them on."
        )
    where = f", see <{fields['license_link']}>" if "license_link" in fields else ""
    return f"The licence of the base model covers these weights too: {escaped(name)}{where}."


def call_arguments(config: Any) -> str:
    """The arguments of a pipeline's call that follow from the training, a line each."""
    height, width = config.data.sizes[0]
    tokens = config.data.max_sequence_length
    arguments = {
        "height": height,
        "width": width,
        **({} if tokens == _TOKENS else {"max_sequence_length": tokens}),
        "guidance_scale": config.loss.guidance_scale,
        "num_inference_steps": 28,
    }
    return "\n".join(f"    {name}={value}," for name, value in arguments.items())


def averages(config: Any, folder: str) -> str:
    """A comment, in Python, on where the averaged weights are; empty without them."""
    return (
        "" if config.train.ema_decay is None else f"# The averaged weights: subfolder={folder!r}\n"
    )
