"""Images of the class, for prior preservation: counted, kept, and made where they are missing.

Images that are made carry their prompt in the file, so that a folder made for another class is
not taken for this one's. Image `class-00012.png` is a function of the seed and its number: what is
made to fill up a folder is what would have been made in the first place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from launcher.training.image_folder import image_files

_PROMPT_KEY = "prompt"


def planned_files(class_data_dir: str, num_class_images: int) -> tuple[Path, list[str], list[int]]:
    """The folder, the files that will be used, sorted, and which of them are there already.

    Of more files than asked for, the first are used.
    """
    folder = Path(class_data_dir).expanduser()
    present = image_files(folder)[:num_class_images] if folder.is_dir() else []
    names = (f"class-{number:05}.png" for number in count())
    missing = islice((n for n in names if n not in present), num_class_images - len(present))
    files = sorted([*present, *missing])
    return folder, files, [row for row, name in enumerate(files) if name in present]


def missing_files(class_data_dir: str, num_class_images: int) -> list[Path]:
    """Those of the files that are not there yet."""
    folder, files, present = planned_files(class_data_dir, num_class_images)
    return [folder / name for row, name in enumerate(files) if row not in present]


def problems(class_data_dir: str, class_prompt: str, num_class_images: int) -> list[str]:
    """What is wrong with the folder: not one, or images made for another prompt."""
    from PIL import Image, UnidentifiedImageError

    option = f"data.class_data_dir is {class_data_dir!r}"
    folder = Path(class_data_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        return [f"{option}, which is a file; give a folder, or one to be made."]
    _, files, present = planned_files(class_data_dir, num_class_images)
    for name in (files[row] for row in present):
        try:
            with Image.open(folder / name) as image:
                prompt = image.info.get(_PROMPT_KEY, class_prompt)
        except (OSError, UnidentifiedImageError):
            continue  # reported with all other images that cannot be read
        if prompt != class_prompt:
            return [
                f"{option}, which holds images made for the prompt {prompt!r} ({name}), but "
                f"data.class_prompt is {class_prompt!r}; give another folder, or delete this one."
            ]
    return []


def make(
    files: Sequence[Path],
    load_pipeline: Callable[[], Any],
    *,
    class_prompt: str,
    seed: int,
    size: tuple[int, int],
    sample_batch_size: int,
    num_inference_steps: int,
    max_sequence_length: int,
    say: Callable[[str], None],
) -> None:
    """Make class images with the base model.

    Args:
        files: as `missing_files` names them.
        load_pipeline: makes the `FluxPipeline`.
        say: told what goes on, a line at a time.
    """
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from flux_common.sampling import sample
    from launcher.training.random import generator

    if not files:
        return
    folder = files[0].parent
    say(f"making {len(files)} class images in {folder}: {class_prompt}")
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline()
    shape = (size[0] // 16 * (size[1] // 16), pipeline.transformer.config.in_channels)
    noise = [
        generator(seed, "class image", int(file.stem.rpartition("-")[2])).standard_normal(
            shape, dtype=np.float32
        )
        for file in files
    ]
    images = sample(
        pipeline,
        class_prompt,
        noise,
        size=size,
        batch_size=min(sample_batch_size, len(files)),
        num_inference_steps=num_inference_steps,
        max_sequence_length=max_sequence_length,
    )
    note = PngInfo()
    note.add_itxt(_PROMPT_KEY, class_prompt)
    for number, (file, image) in enumerate(zip(files, images, strict=True), start=1):
        partial = file.with_name(f".{file.name}.partial")
        Image.fromarray(image).save(partial, format="PNG", pnginfo=note)
        os.replace(partial, file)
        if number % sample_batch_size == 0 or number == len(files):
            say(f"class image {number} of {len(files)}")
