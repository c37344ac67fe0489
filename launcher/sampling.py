"""Making images with what was trained: which weights, of what, and where the images go."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import SampledImage, SampleRequest
from launcher import child
from launcher.checkpointing import EMA
from launcher.console import Console
from launcher.parts import prepare_models
from launcher.plugin_checks import display_path
from launcher.rundir import CONFIG, expand, unwritable
from launcher.start import read_exported
from launcher.training import checkpoint, device_memory
from launcher.training.errors import UserError, refuse
from launcher.training.images import check_image, write_png

if TYPE_CHECKING:
    from launcher.config import Resolved
    from launcher.plugins import Plugins

#: What makes images with a ControlNet of which nothing else is known.
_RECIPE = "flux_controlnet"
#: Names of its entry in a PNG's text; `prompt` stands for itself, where other programs look.
_PARAMETERS = "parameters"


@dataclass(frozen=True)
class Weights:
    """What images are made with.

    Attributes:
        folder: holds the weights.
        config: the configuration of the run; None: they are of no run.
        label: what they are, in words.
    """

    folder: Path
    config: Path | None
    label: str


def find(given: str, ema: bool, say: Any) -> Weights:
    """The weights that the user means.

    Args:
        given: the folder of a run, of a checkpoint, or of a model by itself.
        ema: the averaged ones.
        say: told of checkpoints that are damaged.

    Raises:
        UserError: there are none.
    """
    try:
        path = expand(given)
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{given!r}: {reason}. Give the folder of a run.") from error
    if not is_folder:
        what = "is a file" if exists else "does not exist"
        hint = ""
        if not exists and given.count("/") == 1 and not given.startswith((".", "~", "/")):
            hint = (
                f" If it is on the hub: `hf download {given} --local-dir FOLDER`, and the folder."
            )
        raise UserError(
            f"{given} {what}; give the folder of a run, of one of its checkpoints, or of a "
            f"ControlNet in diffusers' layout.{hint}"
        )
    if checkpoint.is_checkpoint(path):
        found = checkpoint.read(path)
        weights = Weights(path, path / CONFIG, f"step {found.step:,}")
    elif (path / CONFIG).is_file():
        weights = _newest(path, say)
    elif (path / "config.json").is_file() or any(path.glob("*.safetensors")):
        if ema:
            raise UserError(
                f"--ema: {given} is no run, so that nothing is known of averaged weights. Give "
                "the folder that holds them."
            )
        return Weights(path, None, display_path(path))
    else:
        raise UserError(
            f"{given} holds neither a run ({CONFIG}) nor a ControlNet (config.json and "
            "safetensors files). Give the folder that a run wrote to, one of its checkpoints, or "
            "the folder of a ControlNet in diffusers' layout."
        )
    if not ema:
        return weights
    if not (weights.folder / EMA).is_dir():
        raise UserError(
            f"--ema: {display_path(weights.folder)} has no averaged weights; a run keeps them "
            "where train.ema_decay is set. Leave out --ema."
        )
    return Weights(weights.folder / EMA, weights.config, f"{weights.label}, averaged")


def _newest(path: Path, say: Any) -> Weights:
    """Of a run: what it has exported at its end, or its newest checkpoint, if that is newer."""
    steps = checkpoint.steps_in(path)
    content = read_exported(path)
    exported = -1 if content is None else int(content["step"])
    if steps and steps[-1] > exported:
        found = checkpoint.newest(path, say)
        if found is not None and found.step > exported:
            return Weights(found.path, path / CONFIG, f"step {found.step:,}")
    if exported < 0:
        raise UserError(
            f"the run in {path} has neither a checkpoint yet nor exported weights. Wait for its "
            "first checkpoint (checkpoint.checkpointing_steps, every_minutes; SIGUSR1 makes one)."
        )
    return Weights(path, path / CONFIG, f"step {exported:,}")


def run(
    options: argparse.Namespace, settings: Sequence[str], argv: Sequence[str], console: Console
) -> None:
    """Make images, write them, and print their paths.

    Args:
        options: of `launcher sample`, each checked by itself.
        settings: `name=value`, over the run's own.
        argv: the arguments as typed, for the process that encodes the prompts.
    """
    # Its process for the prompts looks for itself, and need not say everything again.
    say = (lambda text: None) if options.encodes_only else console.headline
    subjects = subjects_of(options)
    weights = find(options.run, options.ema, say)
    with _still_there(weights):
        _sample(options, settings, argv, console, weights, subjects, say)


@contextmanager
def _still_there(weights: Weights) -> Iterator[None]:
    """Say so where a checkpoint is removed while it is read."""
    try:
        yield
    except (OSError, UserError) as error:
        if weights.folder.is_dir():
            raise
        raise UserError(
            f"{display_path(weights.folder)} was removed while it was read: the run goes on, and "
            "keeps only its newest checkpoints (checkpoint.checkpoints_total_limit). Start again."
        ) from error


def _sample(
    options: argparse.Namespace,
    settings: Sequence[str],
    argv: Sequence[str],
    console: Console,
    weights: Weights,
    subjects: Sequence[tuple[str, str | None]],
    say: Callable[[str], object],
) -> None:
    """Make the images; see `run`."""
    plugins, resolved = _configure(options, settings, weights)
    if plugins.leaves_to_launcher("sample"):
        raise UserError(
            f"{options.run} is of the recipe {plugins.recipe}, which makes no images: `launcher "
            "sample` is for ControlNets, and for recipes that answer the hook sample."
        )
    config, hook = resolved.config, plugins.hook
    output = Output(options, subjects, weights)
    if not options.encodes_only:
        output.require_free()

    from launcher.pipeline import choose_device

    choose_device(config)
    size = None if options.height is None else (options.height, options.width)
    images = hook.sample(
        config=config,
        request=SampleRequest(
            weights=weights.folder,
            subjects=subjects,
            scales=options.scale,
            num_images=options.num_images,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            control_mode=options.control_mode,
            seed=options.seed,
            size=size,
            build=lambda config, stage: prepare_models(config, hook, stage),
            encode_elsewhere=lambda: child.run(
                "sample",
                [*argv, "--encodes-only"],
                "encodes the prompts",
                "Start again; if memory is short, close other programs.",
            ),
            encodes_only=options.encodes_only,
            say=say,
        ),
    )
    total = len(subjects) * len(options.scale) * options.num_images
    written = 0
    with device_memory.needed_for("an image", "Make smaller ones, by --height and --width."):
        for file in output.write(images):
            written += 1
            console.headline(f"image {written} of {total}")
            console.result(str(file))
    if written > 1:
        console.result(str(output.write_grid()))


def _configure(
    options: argparse.Namespace, settings: Sequence[str], weights: Weights
) -> tuple[Plugins, Resolved]:
    """The plugins and the configuration that the weights were trained with."""
    from launcher import choice, placeholders

    base = "model.pretrained_model_name_or_path"
    extra = [] if options.base is None else [f"{base}={options.base}"]
    if weights.config is not None:
        if options.recipe is not None:
            raise UserError(
                f"--recipe is for ControlNets that are no run's; {options.run} has a recipe."
            )
        chosen = argparse.Namespace(
            recipe=None, config=[str(weights.config)], plugin=[], verbose=options.verbose
        )
        return choice.configure(chosen, [*settings, *extra])
    if options.base is None and not any(s.startswith(f"{base}=") for s in settings):
        raise UserError(
            f"{options.run} is of no run, so that its base model is not known. Give it: --base "
            "black-forest-labs/FLUX.1-dev, or a local folder."
        )
    chosen = argparse.Namespace(
        recipe=options.recipe or _RECIPE, config=[], plugin=[], verbose=options.verbose
    )
    return placeholders.configure(chosen, [*settings, *extra])


# -------------------------------------------------------------------------------------------
# What images are made of
# -------------------------------------------------------------------------------------------


def subjects_of(options: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Prompts and paths of control images that belong together.

    Raises:
        UserError: their numbers do not match, or an image cannot be used.
    """
    prompts, controls = list(options.prompt), list(options.control)
    if options.prompts is not None:
        if prompts or controls:
            raise UserError("give --prompts, or --prompt and --control, not both.")
        subjects = _read_subjects(options.prompts)
    else:
        if not prompts:
            raise UserError('what is to be seen? Give --prompt "a red circle", or --prompts FILE.')
        if controls and len(prompts) != len(controls) and 1 not in (len(prompts), len(controls)):
            raise UserError(
                f"there are {len(prompts)} prompts and {len(controls)} control images. Give as "
                "many of either, or one that serves all."
            )
        count = max(len(prompts), len(controls))
        subjects = [
            (prompts[i % len(prompts)], controls[i % len(controls)] if controls else None)
            for i in range(count)
        ]
    problems = [
        f"the prompt {prompt!r} has characters that are none; give it in UTF-8."
        for prompt in dict.fromkeys(prompt for prompt, _ in subjects)
        if not _is_text(prompt)
    ]
    for path in dict.fromkeys(control for _, control in subjects if control is not None):
        try:
            check_image(path)
        except ValueError as error:
            problems.append(f"the control image {path} cannot be used: {error}.")
    refuse(problems)
    return subjects


def _is_text(prompt: str) -> bool:
    """False: it has bytes of another encoding than UTF-8, or halves of characters."""
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_subjects(name: str) -> list[tuple[str, str | None]]:
    file = Path(name).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--prompts {name} cannot be read: {reason}.") from error
    subjects: list[tuple[str, str | None]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        known = isinstance(entry, dict) and not entry.keys() - {"prompt", "control"}
        if (
            not known
            or not all(isinstance(v, str) for v in entry.values())
            or "prompt" not in entry
        ):
            raise UserError(
                f'line {number} of {name} is not like {{"prompt": "a red circle", "control": '
                f'"edges.png"}}: {line[:80]}'
            )
        control = entry.get("control")
        subjects.append((entry["prompt"], None if control is None else str(file.parent / control)))
    if not subjects:
        raise UserError(f"--prompts {name} has no prompts.")
    return subjects


# -------------------------------------------------------------------------------------------
# Where they go
# -------------------------------------------------------------------------------------------


class Output:
    """The folder of the images.

    `prompt-0.png`; with several scales `prompt-0-scale-0.5.png`; further images of different noise
    end in `-1`, `-2`. Beside several there is `grid.png`, and the control images as they were seen.

    Args:
        options: of `launcher sample`.
        subjects: see `SampleRequest`.
        weights: what the images are made with.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        subjects: Sequence[tuple[str, str | None]],
        weights: Weights,
    ) -> None:
        try:
            self._folder = expand(options.output)
        except ValueError as error:
            raise UserError(f"--output {options.output!r}: {error}.") from error
        self._options = options
        self._subjects = subjects
        self._weights = weights
        self._controls: dict[int, Path] = {}

    def require_free(self) -> None:
        """Raise UserError if something would be overwritten, or nothing can be written."""
        problem = unwritable(self._folder, "--output")
        if problem:
            raise UserError(f"--output {self._options.output} {problem}.")
        there = [path.name for path in self._files() if os.path.lexists(path)]
        if there and not self._options.overwrite:
            more = f" and {len(there) - 3} more" if len(there) > 3 else ""
            raise UserError(
                f"{self._options.output} has {', '.join(there[:3])}{more} already. Give another "
                "--output, or --overwrite to replace them."
            )

    def write(self, images: Any) -> Iterator[Path]:
        """Write each image as it is made. Yields the files."""
        for made in images:
            if made.control is not None and self._has_grid and made.subject not in self._controls:
                path = self._folder / f"control-{made.subject}.png"
                self._save(path, made.control, {})
                self._controls[made.subject] = path
            path = self._path(made.subject, made.scale, made.number)
            self._save(path, made.image, self._about(made))
            yield path

    def write_grid(self) -> Path:
        """All images side by side: a row each prompt, a column each scale."""
        from launcher.training.grid import Row, lay_out

        options = self._options
        rows = []
        for subject, (prompt, _) in enumerate(self._subjects):
            given = [self._controls[subject]] if self._controls else []
            for number in range(options.num_images):
                made = [self._path(subject, s, number) for s in range(len(options.scale))]
                rows.append(Row(prompt if not number else f"{prompt} ({number + 1})", given + made))
        columns = ["control"] if self._controls else []
        columns += [f"scale {scale:g}" for scale in options.scale]
        path = self._folder / "grid.png"
        self._write(path, lay_out(columns, rows))
        return path

    @property
    def _has_grid(self) -> bool:
        options = self._options
        return len(self._subjects) * len(options.scale) * options.num_images > 1

    def _files(self) -> Iterator[Path]:
        for subject in range(len(self._subjects)):
            for scale in range(len(self._options.scale)):
                for number in range(self._options.num_images):
                    yield self._path(subject, scale, number)
        if self._has_grid:
            yield self._folder / "grid.png"
            for subject in range(len(self._subjects)):
                yield self._folder / f"control-{subject}.png"

    def _path(self, subject: int, scale: int, number: int) -> Path:
        name = f"prompt-{subject}"
        if len(self._options.scale) > 1:
            name += f"-scale-{self._options.scale[scale]:g}"
        return self._folder / f"{name}{f'-{number}' if number else ''}.png"

    def _about(self, made: SampledImage) -> dict[str, str]:
        """What the text of a PNG says, so that the image can be made again."""
        options = self._options
        prompt, control = self._subjects[made.subject]
        height, width = made.image.shape[:2]
        parameters = {
            "prompt": prompt,
            "control": control,
            "scale": options.scale[made.scale],
            "steps": options.steps,
            "guidance": options.guidance,
            "seed": options.seed,
            "number": made.number,
            "height": height,
            "width": width,
            "weights": f"{options.run} ({self._weights.label})",
        }
        if options.control_mode is not None:
            parameters["control_mode"] = options.control_mode
        return {"prompt": prompt, _PARAMETERS: json.dumps(parameters, ensure_ascii=False)}

    def _save(self, path: Path, image: Any, about: dict[str, str]) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        note = PngInfo()
        for name, text in about.items():
            note.add_itxt(name, text)
        self._write(path, Image.fromarray(image), note)

    def _write(self, path: Path, image: Any, note: Any = None) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, image, note)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
