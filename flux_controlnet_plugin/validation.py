"""Images that show how far the training is, in the run's folder `validation/`.

    prompts.json                what there is an image of
    control-5e0a3b1c.png        the control image, as the ControlNet sees it
    target-77c01f9d.png         the image that it belongs to, of a held-out sample
    step-000100/prompts.json    what there was an image of after step 100
    step-000100/prompt-0.png    the image of the first; further ones are prompt-0-1.png
    grid.png                    all of that in one image

Names of controls and targets tell their content, since a run may be continued with others.

The VAE is loaded into the training process for this: it is small beside the transformer (FLUX.1's
takes 0.17 GB in half precision), and stays compiled between two validations. Once the device has no
room for what decoding takes, it moves to the CPU, into a process of its own: a second process on
the device could not have the memory that the training holds. The text encoders are not needed: the
prompts' embeddings are in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_common.latents import NotFiniteError
from flux_controlnet_plugin.images import Settings
from launcher.training import atomic
from launcher.training.buckets import nearest
from launcher.training.errors import UserError
from launcher.training.grid import Row, lay_out, spread
from launcher.training.images import check_image, load_rgb, resize_and_crop, write_png

if TYPE_CHECKING:
    import numpy as np

    from flux_common.collate import Encoded
    from flux_controlnet_plugin.figures import HeldOut
    from flux_controlnet_plugin.images import Painter

_FOLDER = re.compile(r"step-(\d+)")
_PROMPTS, _GRID = "prompts.json", "grid.png"
#: Columns of the grid for steps, at most; of more, some are left out.
_COLUMNS = 8


@dataclass(frozen=True)
class Subject:
    """What images are made of.

    Attributes:
        prompt: in words.
        embeddings: of the prompt; see `Painter.paint`.
        control: uint8 `[H, W, 3]`, of the size that the images are to have.
        target: the image that the control belongs to, likewise; None: there is none.
    """

    prompt: str
    embeddings: tuple[np.ndarray, np.ndarray]
    control: np.ndarray
    target: np.ndarray | None = None


def is_wanted(config: Any) -> bool:
    """Whether the run is validated. Not every launcher has such a section."""
    return "validation" in config and config.validation.is_wanted


def problems(config: Any) -> list[str]:
    """What is wrong with the section `images` of a configuration, in sentences."""
    images = config.images
    found = image_problems("images.validation_image", sorted(set(images.controls)))
    if images.is_wanted and not is_wanted(config):
        found.append(
            "the section images says what validations make images of, but there are no "
            "validations: set validation.validation_steps, at_start or at_end."
        )
    elif images.is_wanted and images.validation_samples > config.validation.heldout_samples:
        found.append(
            f"images.validation_samples is {images.validation_samples}, and those are held-out "
            "samples, of which validation.heldout_samples is "
            f"{config.validation.heldout_samples}. Hold out as many, or more."
        )
    return found


def image_problems(option: str, paths: Sequence[str]) -> list[str]:
    """What is wrong with control images, in sentences."""
    found = []
    for path in paths:
        try:
            check_image(os.path.expanduser(path))
        except ValueError as error:
            found.append(f"{option} is {path!r}, which cannot be used: {error}.")
    return found


def validated_prompts(config: Any) -> list[str]:
    """The prompts whose embeddings a run needs besides those of its data."""
    return list(config.images.prompts) if is_wanted(config) else []


def images_of_run(
    config: Any, models: Mapping[str, Any], dataset: Any, encoded: Encoded, heldout: Sequence[int]
) -> ValidationImages | None:
    """The images of a run's validations; None: there are none.

    Args:
        dataset: of `flux_controlnet_plugin.data.Sample`s.
        encoded: has the embeddings of all captions and prompts.
        heldout: numbers of the samples that are held out.

    Raises:
        UserError: there is nothing to make them with.
    """
    from flux_controlnet_plugin.images import Painter, load_vae
    from flux_controlnet_plugin.vae_process import MovableVae, VaeProcess

    images = config.images
    if not images.is_wanted:
        return None
    if "controlnet" not in models:
        raise UserError(
            "the section images asks for images, which this recipe makes with a ControlNet; the "
            "models of this run have none. Leave the section out."
        )

    def embeddings(prompt: str) -> tuple[np.ndarray, np.ndarray]:
        prompt_embeds, pooled_prompt_embeds = encoded.texts([prompt])
        return prompt_embeds[0], pooled_prompt_embeds[0]

    subjects = [
        Subject(prompt, embeddings(prompt), read_control(path, config.data.sizes))
        for prompt, path in zip(images.prompts, images.controls, strict=True)
    ]
    for row in heldout[: images.validation_samples]:
        sample, prompt = dataset[row], dataset.captions(row)[0]
        control, target = from_float(sample.condition), from_float(sample.target)
        subjects.append(Subject(prompt, embeddings(prompt), control, target))
    news: list[str] = []
    vae: Any
    if images.validation_vae == "process":
        vae = VaeProcess(config.model, config.precision)
    elif images.validation_vae == "memory":
        vae = load_vae(config.model, config.precision)
    else:
        vae = MovableVae(config.model, config.precision, news.append)
    return ValidationImages(
        Painter(models, vae),
        subjects,
        images.num_validation_images,
        images.settings | {"seed": config.train.seed},
        Path(config.train.output_dir).expanduser() / "validation",
        news,
    )


class Prepared:
    """What a validation of the recipe looks at; either may be None.

    Args:
        heldout: samples whose loss is told.
        images: that are made.
    """

    def __init__(self, heldout: HeldOut | None, images: ValidationImages | None) -> None:
        self._heldout = heldout
        self._images = images

    def compile(self) -> None:
        """In graph mode: so that the user sees what takes time."""
        for part in (self._heldout, self._images):
            if part is not None:
                part.compile()

    def look(self, step: int) -> dict[str, Any]:
        """The arguments of `hooks.types.Validation`, after so many steps."""
        from flux_controlnet_plugin.figures import in_words

        figures = {} if self._heldout is None else self._heldout.figures()
        said = [in_words(figures)] if figures else []
        images = {}
        if self._images is not None:
            images["grid"] = self._images.paint(step)
            said += [f"images in {images['grid']}", *self._images.news]
            self._images.news.clear()
        return {"figures": figures, "images": images, "summary": "; ".join(said)}


def read_control(path: str, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """A control image, brought to the nearest of the sizes as in training.

    Raises:
        UserError: it cannot be read.
    """
    import numpy as np

    try:
        image = load_rgb(os.path.expanduser(path))
    except ValueError as error:
        raise UserError(f"the control image {path} cannot be used: {error}.") from error
    size = sizes[int(nearest(np.array([image.shape[:2]]), sizes)[0])]
    return resize_and_crop(image, *size)


def from_float(pixels: np.ndarray) -> np.ndarray:
    """float32 `[3, H, W]` in [-1, 1] to uint8 `[H, W, 3]`; undoes `to_float`."""
    import numpy as np

    return np.rint((pixels.transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)


class ValidationImages:
    """The images of a run's validations.

    Args:
        painter: makes them.
        subjects: what of.
        count: of each.
        settings: of all, but for the size and the number.
        folder: `validation` in the run's folder.
        news: what the user should know of how they are made, as it comes.
    """

    def __init__(
        self,
        painter: Painter,
        subjects: Sequence[Subject],
        count: int,
        settings: Mapping[str, Any],
        folder: Path,
        news: list[str],
    ) -> None:
        self.news = news
        self._painter = painter
        self._subjects = subjects
        self._count = count
        self._settings = settings
        self._folder = folder

    def compile(self) -> None:
        """Make an image of each size in one step, and throw it away."""
        for subject in {subject.control.shape: subject for subject in self._subjects}.values():
            settings = replace(self._settings_of(subject), num_inference_steps=1)
            self._painter.paint(subject.embeddings, subject.control, settings)

    def paint(self, step: int) -> Path:
        """Make the images after so many steps. Returns the file of the grid.

        A folder of the same step, of a course of the run that was given up, is replaced.
        """
        from PIL import Image

        self._folder.mkdir(exist_ok=True)
        prompts = self._write_subjects()
        with atomic.folder(self._folder / f"step-{step:06}", replace=True) as work:
            (work / _PROMPTS).write_text(prompts, encoding="utf-8")
            for row, subject in enumerate(self._subjects):
                for number in range(self._count):
                    settings = replace(self._settings_of(subject), number=number)
                    try:
                        image = self._painter.paint(subject.embeddings, subject.control, settings)
                    except NotFiniteError:
                        self.news.append(
                            f"the image of {subject.prompt!r} came out as numbers that are not "
                            "finite, and is left out"
                        )
                    else:
                        write_png(work / _name(row, number), Image.fromarray(image))
        return write_grid(self._folder, step)

    def _settings_of(self, subject: Subject) -> Settings:
        height, width = subject.control.shape[:2]
        return Settings(height=height, width=width, **self._settings)

    def _write_subjects(self) -> str:
        """Returns the content of prompts.json."""
        from PIL import Image

        entries = []
        for subject in self._subjects:
            entry: dict[str, str | None] = {"prompt": subject.prompt}
            for kind in ("control", "target"):
                image = getattr(subject, kind)
                entry[kind] = None if image is None else f"{kind}-{_digest(image)}.png"
                if image is not None:
                    write_png(self._folder / str(entry[kind]), Image.fromarray(image))
            entries.append(entry)
        text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
        atomic.write_text(self._folder / _PROMPTS, text)
        return text


def write_grid(folder: Path, last: int) -> Path:
    """Put all images of a run side by side: a row each of what images are made of now, a column a
    step. Returns the file.

    Args:
        folder: as `ValidationImages` fills it.
        last: steps after this one are of a course of the run that was given up.
    """
    found = (_FOLDER.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    by_step = {int(match[1]): folder / match[0] for match in found if match}
    steps = spread(sorted(step for step in by_step if step <= last), _COLUMNS)
    prompts = _entries(folder)
    kinds = [kind for kind in ("control", "target") if any(entry[kind] for entry in prompts)]
    # A run that is continued may make images of something else.
    rows_of = {step: _entries(by_step[step]) for step in steps}
    rows = []
    for entry in prompts:
        given = [folder / name if (name := entry[kind]) else None for kind in kinds]
        number = 0
        while True:
            made = [_file(by_step[step], rows_of[step], entry, number) for step in steps]
            if not any(made):
                break
            label = entry["prompt"] or "(no prompt)"
            rows.append(Row(label if not number else f"{label} ({number + 1})", [*given, *made]))
            number += 1
    grid = lay_out([*kinds, *(f"step {step:,}" for step in steps)], rows)
    target = folder / _GRID
    write_png(target, grid)
    return target


def _entries(folder: Path) -> list[dict[str, str | None]]:
    """What the images of a folder are of; empty where that cannot be told any more."""
    try:
        return list(json.loads((folder / _PROMPTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []


def _file(folder: Path, entries: Sequence[object], entry: object, number: int) -> Path | None:
    """The image of an entry in a step's folder; None: there is none."""
    if entry not in entries:
        return None
    path = folder / _name(entries.index(entry), number)
    return path if path.is_file() else None


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:8]


def _name(row: int, number: int) -> str:
    return f"prompt-{row}.png" if number == 0 else f"prompt-{row}-{number}.png"
