"""Pictures by what a run has trained, for the scripts that score them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from flux_common.controlnet_folder import EXPORT_FOLDER
from flux_common.lora_file import WEIGHTS_FILE
from launcher import quiet, sampling
from launcher.training.errors import UserError

#: Of the captions, where no run says otherwise: they have no more, and the base model of the
#: quickstart has seen no more.
TOKENS = 8
BATCH = 25


def script(main: Callable[[], None]) -> None:
    """Run a script, without the frameworks' noise; what its user can mend is said in a sentence."""
    quiet.install(verbose=False)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")


@dataclass(frozen=True)
class Trained:
    """What a run has trained.

    Attributes:
        weights: the folder of the ControlNet, or of the adapters; or their file.
        base: its base model, if it is known.
        tokens: T5's, of a prompt.
        size: side of the square pictures that it was trained on, in pixels; None: they were not
            square, or it is not known.
    """

    weights: Path
    base: Path | None
    tokens: int = TOKENS
    size: int | None = None


def find(given: Path, *, lora: bool = False) -> Trained:
    """The newest of a run, finished or not; a checkpoint; or weights by themselves.

    Args:
        given: the folder; also the file, of adapters.
        lora: whether these are adapters, and not a ControlNet.

    Raises:
        UserError: there is nothing of the kind, or it is of a recipe that knows no captions.
    """
    if lora and given.is_file():
        return Trained(given, None)
    found = sampling.find(str(given), False, lambda text: print(text, file=sys.stderr))
    has_adapters = (found.folder / WEIGHTS_FILE).is_file()
    if has_adapters and not lora:
        raise UserError(
            f"{given} has LoRA adapters, and no ControlNet. control.py scores them: --lora {given}"
        )
    exported = found.folder / EXPORT_FOLDER
    if lora and exported.is_dir():
        raise UserError(f"--lora: {given} has a ControlNet, and no adapters. Leave out --lora.")
    weights = exported if exported.is_dir() else found.folder
    if found.config is None:
        return Trained(weights, None)
    config = yaml.safe_load(found.config.read_text(encoding="utf-8"))
    data, base = config["data"], config["model"]["pretrained_model_name_or_path"]
    if "max_sequence_length" not in data:
        raise UserError(
            f"{given} is of the recipe {config.get('recipe')}, which trains nothing that paints "
            "captions. Give a run of flux_controlnet, or with --lora one of flux_lora_dreambooth."
        )
    size = data["resolution"]
    if isinstance(size, list):
        size = size[0] if len(set(size)) == 1 else None
    return Trained(weights, Path(base).expanduser(), data["max_sequence_length"], size)


def base_of(trained: Trained | None, given: Path | None) -> Path:
    """The folder of the base model: the one that was given, or else that of the run.

    Raises:
        UserError: neither is there.
    """
    base = given or (trained and trained.base)
    if base is None:
        raise UserError("there is no run that tells the base model. Give its folder: --base FOLDER")
    if not (base / "model_index.json").is_file():
        where = "--base" if given else "the run's base model"
        raise UserError(
            f"{where}, {base}, is not the folder of a pipeline (model_index.json), seen from the "
            "current folder. Give one with --base FOLDER; nothing is fetched from the hub here."
        )
    return base


def size_of(trained: Trained | None, given: int | None) -> int:
    """The side of pictures: the one that was given, or else that of the run, or else 64."""
    return given or (trained and trained.size) or 64


class Sampler:
    """Pictures of a base model with a ControlNet, in float32.

    Args:
        base: a pipeline's folder.
        controlnet: its folder; None: one that does nothing.
        lora: a LoRA file, or a folder that has one; None: none.
        steps: of the sampler.
        tokens: T5's, of a caption; more are cut off.

    Raises:
        UserError: the LoRA is not one of the transformer alone, or something cannot be loaded.
    """

    def __init__(
        self,
        base: Path,
        controlnet: Path | None = None,
        lora: Path | None = None,
        *,
        steps: int,
        tokens: int = TOKENS,
    ) -> None:
        from flux_common import loading
        from flux_controlnet_plugin import controlnet as controlnets
        from flux_controlnet_plugin.images import Painter
        from launcher.training import device

        device.set_up("auto", 0, "graph")
        self._encoders = loading.load_encoders(str(base))
        transformer = loading.load_transformer(str(base))
        if lora is not None:
            _adapt(transformer, lora, base)
        if controlnet is None:
            self._controlnet = controlnets.controlnet_from_transformer(transformer, 1, 0)
        else:
            self._controlnet = controlnets.load_controlnet(
                str(controlnet), transformer_config=transformer.config
            )
        models = {
            "transformer": transformer,
            "controlnet": self._controlnet,
            "scheduler": loading.load_scheduler(str(base)),
        }
        self._painter = Painter(models, self._encoders["vae"])
        self._channels = transformer.config.in_channels
        self._latent_channels = self._encoders["vae"].config.latent_channels
        self._steps, self._tokens = steps, tokens

    def load(self, controlnet: Path) -> None:
        """Take the weights of another ControlNet of this size."""
        from launcher.training.weights import read_into

        parameters = dict(self._controlnet.parameters_and_names())
        read_into(parameters, sorted(controlnet.glob("*.safetensors")))

    def encode(self, captions: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each caption what `Painter.paint` takes: float32 `[tokens, joint_attention_dim]` and
        `[pooled_projection_dim]`."""
        from flux_common.prompts import encode_clip, encode_t5, tokenize

        parts = self._encoders
        clip_ids = tokenize(parts["tokenizer"], captions, parts["tokenizer"].model_max_length)
        pooled = encode_clip(parts["text_encoder"], clip_ids)
        ids = tokenize(parts["tokenizer_2"], captions, self._tokens)
        return list(zip(encode_t5(parts["text_encoder_2"], ids), pooled, strict=True))

    def sample(
        self, embeddings: Sequence[Any], controls: Sequence[np.ndarray], scale: float
    ) -> np.ndarray:
        """Pictures of captions and controls. The noise of picture `i` is always the same.

        Args:
            embeddings: from `encode`, one for each control.
            controls: uint8 `[H, W, 3]` each, all of one size.
            scale: that the ControlNet's outputs are multiplied by.

        Returns:
            uint8 `[N, H, W, 3]`.
        """
        from flux_controlnet_plugin.images import Settings

        made = []
        for start in range(0, len(controls), BATCH):
            batch = slice(start, start + BATCH)
            height, width = controls[start].shape[:2]
            settings = Settings(
                height,
                width,
                controlnet_conditioning_scale=scale,
                num_inference_steps=self._steps,
                number=start,
            )
            made.append(self._painter.paint_all(embeddings[batch], controls[batch], settings))
        return np.concatenate(made)

    def through_vae(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 `[N, H, W, 3]`: pictures encoded, to the mean of their posterior, and decoded."""
        from flux_common.latents import decode, encode_moments, normalise
        from launcher.training.images import to_float

        vae, made = self._encoders["vae"], []
        for start in range(0, len(pictures), BATCH):
            pixels = np.stack([to_float(picture) for picture in pictures[start : start + BATCH]])
            mean = encode_moments(vae, pixels)[:, : self._latent_channels]
            latents = normalise(mean, vae.config.shift_factor, vae.config.scaling_factor)
            made.append(decode(vae, latents))
        return np.concatenate(made)

    def noise(self, number: int, size: int) -> dict[str, np.ndarray]:
        """What `sample` draws for the first pictures: `latents` `[N, tokens, channels]`, and
        `control_noise` `[N, C, size / 8, size / 8]` of the control images' posterior."""
        import mindspore as ms
        from mindone.diffusers.utils.mindspore_utils import randn_tensor

        from flux_controlnet_plugin.images import POSTERIOR, Settings, noise_of
        from launcher.training.random import generator

        shape = (1, self._latent_channels, size // 8, size // 8)
        each = [Settings(size, size, number=index) for index in range(number)]
        draws = [generator(one.seed, POSTERIOR, one.number) for one in each]
        return {
            "latents": np.stack([noise_of(one, self._channels) for one in each]),
            "control_noise": np.concatenate(
                [randn_tensor(shape, d, ms.float32).asnumpy() for d in draws]
            ),
        }


def _adapt(transformer: Any, lora: Path, base: Path) -> None:
    from flux_common import lora_file
    from flux_lora_plugin import adapters

    parts = lora_file.read(str(lora))
    if parts.keys() != {"transformer"}:
        raise UserError(
            f"{lora} has adapters of {', '.join(sorted(parts))}; only those of the transformer "
            "alone can be scored here."
        )
    adapters.load_adapters(transformer, parts["transformer"], str(base))
