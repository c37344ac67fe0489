"""Loading the parts of a FLUX.1 pipeline, each by itself.

Every function takes `pretrained_model_name_or_path` (a folder in diffusers' layout, or a name on
the hub) with `revision` and `variant`. Hub files are downloaded first, so that everything is
loaded from a folder and gets the same checks (`pipeline_folder`). Weights then go from the files
into the parameters by name, and anything missing, left over or of another shape is an error that
lists it: mindone's `from_pretrained` only warns and keeps uninitialised values.

Models arrive in float32, whatever dtype the files have, in evaluation mode, not frozen; or, within
`deferred`, without values, to be cast before they are read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_common import pipeline_folder
from launcher.training import safetensors_files, sizes_only, weights
from launcher.training.errors import UserError
from launcher.training.weights import Origin, read_into

if TYPE_CHECKING:
    from mindspore import nn

#: Names that a file may hold although the class has no place for them: T5's language-model head
#: and its embedding a second time, under the name of the place that shares it; in old CLIP files,
#: the numbers 0 to 76.
_SURPLUS = {
    "T5EncoderModel": re.compile(r"lm_head\.weight|encoder\.embed_tokens\.weight|decoder\..*"),
    "CLIPTextModel": re.compile(r"text_model\.embeddings\.position_ids"),
}


def load_encoders(
    pretrained_model_name_or_path: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    with_clip: bool = True,
) -> dict[str, Any]:
    """Load what encodes a data set, by part: tokenizers, text encoders, VAE.

    Args:
        with_clip: False leaves out `text_encoder`, where CLIP runs in the training step.

    Raises:
        UserError: as `load_transformer`.
    """
    path, options = pretrained_model_name_or_path, dict(revision=revision, variant=variant)
    tokenizer, tokenizer_2 = load_tokenizers(path, revision=revision)
    parts = {"tokenizer": tokenizer, "tokenizer_2": tokenizer_2}
    if with_clip:
        parts["text_encoder"] = load_text_encoder(path, **options)
    parts["text_encoder_2"] = load_text_encoder_2(path, **options)
    parts["vae"] = load_vae(path, **options)
    return parts


def load_tokenizers(
    pretrained_model_name_or_path: str, *, revision: str | None = None
) -> tuple[Any, Any]:
    """Load CLIP's and T5's tokenizer (`tokenizer`, `tokenizer_2`) through transformers.

    Raises:
        UserError: as `load_transformer`.
    """
    if sizes_only.is_wanted():  # they have no weights
        return None, None
    from transformers import AutoTokenizer

    folder = _folder(pretrained_model_name_or_path, ["tokenizer", "tokenizer_2"], revision, None)
    tokenizers = []
    for part in ("tokenizer", "tokenizer_2"):
        try:
            with quiet():
                tokenizers.append(AutoTokenizer.from_pretrained(folder / part))
        except Exception as error:  # the Rust library raises bare Exceptions
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the tokenizer in {folder / part} cannot be loaded: {reason.rstrip('.')}. "
                f"Download or copy the folder again."
            ) from error
    return tokenizers[0], tokenizers[1]


def load_text_encoders(
    pretrained_model_name_or_path: str, *, revision: str | None = None, variant: str | None = None
) -> tuple[nn.Cell, nn.Cell]:
    """Load CLIP's text model (`text_encoder`) and T5's encoder (`text_encoder_2`).

    Raises:
        UserError: as `load_transformer`.
    """
    options = dict(revision=revision, variant=variant)
    clip = load_text_encoder(pretrained_model_name_or_path, **options)
    return clip, load_text_encoder_2(pretrained_model_name_or_path, **options)


def load_text_encoder(
    pretrained_model_name_or_path: str, *, revision: str | None = None, variant: str | None = None
) -> nn.Cell:
    """Load CLIP's text model (`text_encoder`).

    Raises:
        UserError: as `load_transformer`.
    """
    folder = _folder(pretrained_model_name_or_path, ["text_encoder"], revision, variant)
    with quiet():
        from mindone.transformers import CLIPTextModel
    return load_model(CLIPTextModel, folder / "text_encoder", variant)


def load_text_encoder_2(
    pretrained_model_name_or_path: str, *, revision: str | None = None, variant: str | None = None
) -> nn.Cell:
    """Load T5's encoder (`text_encoder_2`).

    Raises:
        UserError: as `load_transformer`.
    """
    folder = _folder(pretrained_model_name_or_path, ["text_encoder_2"], revision, variant)
    with quiet():
        from mindone.transformers import T5EncoderModel
    return load_model(T5EncoderModel, folder / "text_encoder_2", variant)


def load_vae(
    pretrained_model_name_or_path: str, *, revision: str | None = None, variant: str | None = None
) -> nn.Cell:
    """Load the autoencoder (`vae`).

    Raises:
        UserError: as `load_transformer`.
    """
    folder = _folder(pretrained_model_name_or_path, ["vae"], revision, variant)
    with quiet():
        from mindone.diffusers import AutoencoderKL
    return load_model(AutoencoderKL, folder / "vae", variant)


def load_transformer(
    pretrained_model_name_or_path: str, *, revision: str | None = None, variant: str | None = None
) -> nn.Cell:
    """Load the FLUX transformer (`transformer`).

    Raises:
        UserError: the folder lacks something, a file is damaged, the weights are those of another
            architecture, or the hub does not give them.
    """
    folder = _folder(pretrained_model_name_or_path, ["transformer"], revision, variant)
    with quiet():
        from mindone.diffusers import FluxTransformer2DModel
    return load_model(FluxTransformer2DModel, folder / "transformer", variant)


def load_scheduler(pretrained_model_name_or_path: str, *, revision: str | None = None) -> Any:
    """Load the noise scheduler (`scheduler`).

    Raises:
        UserError: as `load_transformer`.
    """
    folder = _folder(pretrained_model_name_or_path, ["scheduler"], revision, None)
    with quiet():
        from mindone.diffusers import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler.from_pretrained(str(folder / "scheduler"))


def load_model(model_class: Any, folder: Path, variant: str | None = None) -> nn.Cell:
    """Build one of mindone's models from its folder (config.json and weights) and fill it.

    Args:
        model_class: a class of `mindone.diffusers` or `mindone.transformers`.
        folder: the model's own folder, already checked.
        variant: as in the file names: `fp16` for `model.fp16.safetensors`.

    Raises:
        UserError: weights are missing, left over, or of another shape; all are listed.
    """
    model = build(model_class, folder)
    files = pipeline_folder.weight_files(folder, variant)
    parameters = file_names(model)
    if not sizes_only.is_wanted():
        _compare(model, parameters, files)
    config = pipeline_folder.read_json(folder / "config.json")
    fill(model, Origin(tuple(files), config), lambda: read_into(parameters, files))
    model.set_train(False)
    return model


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Build models without their values, which `launcher.training.weights.load` then reads, in
    whatever dtype the parameters have been given until then."""
    token = _is_deferred.set(True)
    try:
        yield
    finally:
        _is_deferred.reset(token)


_is_deferred: ContextVar[bool] = ContextVar("deferred", default=False)


def fill(model: nn.Cell, origin: Origin, read: Callable[[], None]) -> None:
    """Let `read` set the parameters of a model that was built without values: now, or, within
    `deferred`, later."""
    weights.defer(model, origin, read)
    if not _is_deferred.get() and not sizes_only.is_wanted():
        weights.load([model])


def build(model_class: Any, folder: Path) -> nn.Cell:
    """Build a model from `folder/config.json`, float32, its parameters without values as yet."""
    from mindspore.nn.utils import no_init_parameters

    from launcher.training import device

    with quiet(), no_init_parameters():
        device.supply_what_lacks()
        if hasattr(model_class, "config_class"):  # transformers' way
            config = model_class.config_class.from_pretrained(folder)
            config.dtype = "float32"
            return model_class(config)
        return model_class.from_config(model_class.load_config(str(folder)))


def file_names(model: nn.Cell) -> dict[str, Any]:
    """Parameters by the name that they have in diffusers' and transformers' files.

    The names come from the cells' places in the model, not from `Parameter.name`, which changes
    when a model becomes part of another cell.
    """
    from mindspore import nn

    renamed = {}
    for path, cell in model.cells_and_names():
        if isinstance(cell, nn.Embedding):
            renamed[f"{path}.embedding_table"] = f"{path}.weight"
        elif isinstance(cell, (nn.LayerNorm, nn.GroupNorm)):
            renamed[f"{path}.gamma"] = f"{path}.weight"
            renamed[f"{path}.beta"] = f"{path}.bias"
    return {renamed.get(name, name): p for name, p in model.parameters_and_names()}


def _compare(model: Any, parameters: dict[str, Any], files: Sequence[Path]) -> None:
    """Raise unless the files hold exactly the parameters of the model, in its shapes."""
    class_name = type(model).__name__
    held: dict[str, tuple[int, ...]] = {}
    for file in files:
        held.update((n, t.shape) for n, t in safetensors_files.read_header(file).items())
    missing = sorted(parameters.keys() - held.keys())
    harmless = _SURPLUS.get(class_name)
    surplus = sorted(
        name
        for name in held.keys() - parameters.keys()
        if harmless is None or not harmless.fullmatch(name)
    )
    shapes = [
        f"{name} is {list(held[name])}, not {list(p.shape)}"
        for name, p in parameters.items()
        if name in held and held[name] != tuple(p.shape)
    ]
    faults = []
    if missing:
        faults.append(f"{len(missing)} of the model's weights are missing ({_some(missing)})")
    if shapes:
        faults.append(f"{len(shapes)} have another shape ({_some(shapes)})")
    if surplus:
        faults.append(f"{len(surplus)} have no place in the model ({_some(surplus)})")
    if faults:
        raise UserError(
            f"the weights in {files[0].parent} are not those of the {class_name} that config.json "
            f"beside them describes: {'; '.join(faults)}. Check that config.json and the weights "
            f"belong together and that every file was downloaded."
        )


def _some(names: Sequence[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _folder(name_or_path: str, parts: list[str], revision: str | None, variant: str | None) -> Path:
    """The checked folder of a pipeline, local or downloaded."""
    folder = pipeline_folder.locate(name_or_path, parts, revision, variant)
    problems = pipeline_folder.problems(str(folder), parts, None, variant)
    if problems:
        raise UserError(" ".join(problems))
    return folder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings from the libraries: what they would tell of loading is checked here."""
    import logging
    import warnings

    names = ("mindone", "transformers", "huggingface_hub")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
