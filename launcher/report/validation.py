"""The images that validations have made: a line a prompt, a column a step, the newest first."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.report.files import damaged
from launcher.report.html import Child, Markup, join, scrolled, tag
from launcher.report.images import LARGE, SMALL, encode
from launcher.report.run import Run
from launcher.training.grid import spread

#: Columns of steps; and images of one run, at most.
_COLUMNS = 8
#: What an image may be compared with, in the order of the columns.
_REFERENCES = ("control", "target")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FOLDER = re.compile(r"step-(\d+)")
_PROMPT = re.compile(r"prompt-(\d+)(?=\D)")


@dataclass(frozen=True)
class Prompt:
    """What an image was made of.

    Attributes:
        text: None: it is not known.
        references: images to compare with, by what they are, `control` and `target`.
    """

    text: str | None = None
    references: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Images:
    """The images of a run.

    Attributes:
        steps: those that have images, in rising order.
        shown: those of them that are shown, the newest first.
        rows: names of files, as `prompt-0.png`, in order.
        prompts: of prompts.json.
        files: path by step and name.
    """

    steps: list[int]
    shown: list[int]
    rows: list[str]
    prompts: list[Prompt]
    files: dict[tuple[int, str], Path]


def find(run: Run) -> Images:
    """Look for a run's images."""
    folder = run.path / "validation"
    prompts = _prompts(folder, folder)
    files = {
        (int(match[1]), name): path
        for one in _content(folder)
        if (match := _FOLDER.fullmatch(one.name))
        for name, path in _named(one, prompts)
    }
    steps = sorted({step for step, _ in files})
    rows = sorted({name for _, name in files}, key=_numbers)
    return Images(steps, spread(steps, _COLUMNS)[::-1], rows, prompts, files)


def _named(folder: Path, prompts: list[Prompt]) -> Iterator[tuple[str, Path]]:
    """The images of a step by the names that those of the same prompts have now: a run that was
    continued may make images of other ones. Those of prompts that it has no more are left out."""
    then = _prompts(folder, folder.parent)
    for path in _content(folder):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        match = _PROMPT.match(path.name)
        if then and match and int(match[1]) < len(then):
            prompt = then[int(match[1])]
            if prompt in prompts:
                yield f"prompt-{prompts.index(prompt)}{path.name[match.end(1) :]}", path
        else:
            yield path.name, path


def _content(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is none, or not there any more."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise damaged(folder, str(error)) from error


def section(runs: list[Run]) -> Markup | None:
    """The images of all runs; None if there are none."""
    found = [(run, find(run)) for run in runs]
    grids = [
        run.path / "validation" / "grid.png"
        for run, images in found
        if not images.files and (run.path / "validation" / "grid.png").is_file()
    ]
    newest = [path for _, images in found for path in _newest(images)]
    older = [path for _, images in found for path in _older(images)]
    if not newest and not grids:
        return None
    encoded = encode([*newest, *grids], LARGE) | encode(older, SMALL)
    shown = [_of_run(run, images, encoded, titled=len(runs) > 1) for run, images in found]
    said = "The newest validation is first. A click shows an image large, and another one ends it."
    note = tag("p", said, class_="note") if newest else None
    return tag("section", tag("h2", "Validation images"), note, shown, id="images")


def _newest(images: Images) -> list[Path]:
    """The images of the newest validation, and what they are compared with."""
    if not images.files:
        return []
    references = (path for prompt in images.prompts for path in prompt.references.values())
    return [*references, *_of_steps(images, images.shown[:1])]


def _older(images: Images) -> list[Path]:
    return _of_steps(images, images.shown[1:])


def _of_steps(images: Images, steps: list[int]) -> list[Path]:
    return [
        images.files[step, row]
        for step in steps
        for row in images.rows
        if (step, row) in images.files
    ]


def _of_run(run: Run, images: Images, encoded: dict[Path, str], titled: bool) -> Markup:
    title = tag("h3", run.label) if titled else None
    grid = run.path / "validation" / "grid.png"
    if not images.files:
        if grid not in encoded:
            return join([title, tag("p", "No images.", class_="note")])
        image = tag("img", src=encoded[grid], alt=f"validation images of {run.label}, all steps")
        return join([title, scrolled("validation images", image)])
    note = None
    if len(images.shown) < len(images.steps):
        note = tag(
            "p",
            f"{len(images.shown)} of {len(images.steps)} validations are shown, the first and the "
            "last among them.",
            class_="note",
        )
    kinds = [kind for kind in _REFERENCES if any(kind in p.references for p in images.prompts)]
    head = [*kinds, *(f"step {step:,}" for step in images.shown)]
    rows: list[Child] = []
    for name in images.rows:
        prompt = _prompt_of(name, images.prompts)
        said = Path(name).stem if prompt.text is None else prompt.text
        cells = [_cell(prompt.references.get(kind), encoded, f"{kind}: {said}") for kind in kinds]
        cells += [
            _cell(images.files.get((step, name)), encoded, f"step {step:,}: {said}")
            for step in images.shown
        ]
        rows.append(tag("tr", tag("th", said, scope="rowgroup", colspan=len(head)), class_="said"))
        rows.append(tag("tr", cells))
    titles = tag("tr", [tag("th", cell, scope="col") for cell in head])
    body = tag(
        "table", tag("thead", titles), tag("tbody", rows), class_="images", style=f"--n:{len(head)}"
    )
    return join([title, note, scrolled(f"validation images of {run.label}", body)])


def _cell(path: Path | None, encoded: dict[Path, str], alt: str) -> Markup:
    if path is None:
        return tag("td", "–")
    if path not in encoded:
        return tag("td", "cannot be read", class_="bad")
    # Open, the image fills the window: style.css.
    return tag("td", tag("details", tag("summary", tag("img", src=encoded[path], alt=alt))))


def _prompt_of(name: str, prompts: list[Prompt]) -> Prompt:
    """The prompt of `prompt-N.png` or `prompt-N-M.png`; not known for other files."""
    match = _PROMPT.match(name)
    number = int(match[1]) if match else len(prompts)
    return prompts[number] if number < len(prompts) else Prompt()


def _prompts(place: Path, folder: Path) -> list[Prompt]:
    """prompts.json. It serves as captions, so that images without it are shown all the same, and
    so they are if it is damaged or being written.

    Args:
        place: where it is.
        folder: that its images are in.
    """
    try:
        content = json.loads((place / "prompts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    entries = content if isinstance(content, list) else []
    return [_prompt(folder, entry if isinstance(entry, dict) else {}) for entry in entries]


def _prompt(folder: Path, entry: Mapping[str, Any]) -> Prompt:
    text = entry.get("prompt")
    references = {
        kind: folder / name
        for kind in _REFERENCES
        if isinstance(name := entry.get(kind), str) and _is_within(folder, name)
    }
    return Prompt(text if isinstance(text, str) else None, references)


def _is_within(folder: Path, name: str) -> bool:
    """A page may be passed on: no image from elsewhere gets into it, not by a link either."""
    if "\0" in name:
        return False
    return Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))


def _numbers(name: str) -> list[tuple[int, str]]:
    """Sorts `prompt-2` before `prompt-10`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
