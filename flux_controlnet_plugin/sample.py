"""Images with a trained ControlNet, for `launcher sample`.

The prompts' embeddings come from the cache, which runs share. What is missing there another process
encodes, so that the text encoders' memory is free again when the networks are loaded.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flux_common.controlnet_folder import EXPORT_FOLDER
from flux_common.export import CONFIG_FILE
from hooks.types import Config, SampledImage, SampleRequest
from launcher.training.errors import UserError, refuse


def sample(config: Any, request: SampleRequest) -> Iterator[SampledImage]:
    """The images that are asked for. Raises UserError before the first is made, or not at all."""
    from flux_common.encode import encode_captions
    from flux_common.encodings import FluxEncodings
    from flux_controlnet_plugin import models
    from flux_controlnet_plugin.images import Painter, Settings
    from flux_controlnet_plugin.vae_process import MovableVae
    from flux_controlnet_plugin.validation import read_control
    from launcher.training import weights
    from launcher.training.cache import DiskCache

    config = _with_weights(config, request)
    refuse(models.problems(config.model, is_trained=False))
    sizes = config.data.sizes if request.size is None else [request.size]
    controls = []
    for prompt, path in request.subjects:
        if path is None:
            raise UserError(
                f"the prompt {prompt!r} has no control image, which a ControlNet needs: give "
                "--control IMAGE."
            )
        controls.append(read_control(path, sizes))
        _tell_of_crop(path, controls[-1].shape, request)

    prompts = list(dict.fromkeys(prompt for prompt, _ in request.subjects))
    networks = request.build(config, "train")
    encoders = request.build(config, "precompute")
    encodings = FluxEncodings(
        encoders,
        lambda: prompts,
        {},
        max_sequence_length=config.data.max_sequence_length,
        network=networks["transformer"],
        memory=config.data.digests_dir,
    )
    guidance = _guidance(request, networks["transformer"])
    _require_mode(request, networks["controlnet"].config.num_mode)
    for prompt in prompts:
        _tell_of_length(prompt, encoders["tokenizer_2"], config.data.max_sequence_length, request)
    keys = {prompt: encodings.text(prompt) for prompt in prompts}
    cache = DiskCache(config.data.encodings_dir, verify=config.data.verify)
    if cache.missing(encodings.text_keys()).any():
        cache.require_writable()
        if request.encodes_only:
            weights.load([encoders["text_encoder"], encoders["text_encoder_2"]])
            encode_captions(encoders, encodings, cache)
        else:
            request.say(
                f"encoding {len(prompts)} prompts" if prompts[1:] else "encoding the prompt"
            )
            request.encode_elsewhere()
            cache.refresh()
    if request.encodes_only:
        return
    del encoders

    request.say("loading the networks")
    weights.load(networks.cells().values())
    painter = Painter(networks, MovableVae(config.model, config.precision, request.say))
    request.say("making the first image, which compiles")
    for subject, (prompt, _) in enumerate(request.subjects):
        entry, control = cache.get(keys[prompt]), controls[subject]
        embeddings = entry["prompt_embeds"], entry["pooled_prompt_embeds"]
        for scale, strength in enumerate(request.scales):
            for number in range(request.num_images):
                settings = Settings(
                    *control.shape[:2],
                    controlnet_conditioning_scale=strength,
                    num_inference_steps=request.num_inference_steps,
                    guidance_scale=guidance,
                    control_mode=request.control_mode,
                    seed=request.seed,
                    number=number,
                )
                image = painter.paint(embeddings, control, settings)
                yield SampledImage(subject, scale, number, image, control)


def _with_weights(config: Any, request: SampleRequest) -> Config:
    """The configuration, with the ControlNet that is asked for."""
    folder = request.weights
    if not (folder / CONFIG_FILE).is_file():
        if (folder / EXPORT_FOLDER).is_dir():
            folder = folder / EXPORT_FOLDER
        elif not any(folder.glob("*.safetensors")):
            raise UserError(
                f"{folder} holds no ControlNet: there is no folder {EXPORT_FOLDER}. A variant of "
                "the recipe that trains something else needs an answer to the hook sample, too."
            )
    model = replace(config.model, controlnet_model_name_or_path=str(folder))
    return Config({**config, "model": model})


#: That of diffusers' and MindONE's pipelines for guidance-distilled models.
_USUAL_GUIDANCE = 3.5


def _guidance(request: SampleRequest, transformer: Any) -> float:
    if request.guidance_scale is None:
        return _USUAL_GUIDANCE
    if not transformer.config.guidance_embeds:
        raise UserError(
            f"--guidance is {request.guidance_scale:g}, and the base model is told no guidance "
            "(guidance_embeds is false, as of FLUX.1-schnell). Leave --guidance out."
        )
    return request.guidance_scale


def _require_mode(request: SampleRequest, modes: int | None) -> None:
    """Raise UserError unless a mode is given for a union of so many, and for nothing else."""
    mode = request.control_mode
    if modes is None:
        if mode is not None:
            raise UserError(
                f"--control-mode is {mode}, and the ControlNet is for a single kind of control "
                "(num_mode is null). Leave --control-mode out."
            )
    elif mode is None or mode >= modes:
        given = "not given" if mode is None else str(mode)
        raise UserError(
            f"the ControlNet is a union of {modes} modes, and --control-mode is {given}. Give the "
            f"number of the control image's kind, 0 to {modes - 1}; the model's card says which "
            "is which."
        )


def _tell_of_length(prompt: str, tokenizer: Any, limit: int, request: SampleRequest) -> None:
    tokens = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
    if tokens > limit:
        request.say(
            f"the prompt {textwrap.shorten(prompt, 60)!r} has {tokens} tokens, and the rest after "
            f"{limit} is cut off (data.max_sequence_length, as in training)"
        )


def _tell_of_crop(path: str, shape: tuple[int, ...], request: SampleRequest) -> None:
    from launcher.training.images import image_size, same_aspect

    stored = image_size(path)
    if not same_aspect(stored, (shape[0], shape[1])):
        request.say(
            f"{path} is {stored[0]}x{stored[1]} (height x width): scaled until it covers "
            f"{shape[0]}x{shape[1]}, and its centre is used, as in training. --height and --width "
            "choose another size."
        )
