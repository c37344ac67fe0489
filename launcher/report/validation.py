"""The images that validations have made: a line a prompt, a column a step."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from launcher.report.html import Child, Markup, join, scrolled, tag
from launcher.report.images import encode
from launcher.report.run import Run
from launcher.training.grid import spread

#: Columns of steps; and images of one run, at most.
_COLUMNS = 8
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FOLDER = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Images:
    """The images of a run.

    Attributes:
        steps: those that have images, in rising order.
        shown: those of them that are shown.
        rows: names of files, as `prompt-0.png`, in order.
        prompts: entries of prompts.json.
        files: path by step and name.
    """

    steps: list[int]
    shown: list[int]
    rows: list[str]
    prompts: list[dict[str, str]]
    files: dict[tuple[int, str], Path]


def find(run: Run) -> Images:
    """Look for a run's images."""
    folder = run.path / "validation"
    files = {
        (int(match[1]), path.name): path
        for one in _content(folder)
        if (match := _FOLDER.fullmatch(one.name))
        for path in _content(one)
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    }
    steps = sorted({step for step, _ in files})
    rows = sorted({name for _, name in files}, key=_numbers)
    return Images(steps, spread(steps, _COLUMNS), rows, _prompts(folder), files)


def _content(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is none, or not there any more."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def section(runs: list[Run]) -> Markup | None:
    """The images of all runs; None if there are none."""
    found = [(run, find(run)) for run in runs]
    grids = [
        run.path / "validation" / "grid.png"
        for run, images in found
        if not images.files and (run.path / "validation" / "grid.png").is_file()
    ]
    paths = [path for run, images in found for path in _paths(run, images)]
    if not paths and not grids:
        return None
    encoded = encode(paths) | encode(grids, largest=1600)
    shown = [_of_run(run, images, encoded, titled=len(runs) > 1) for run, images in found]
    return tag("section", tag("h2", "Validation images"), shown, id="images")


def _paths(run: Run, images: Images) -> list[Path]:
    references = [
        run.path / "validation" / prompt[kind]
        for prompt in images.prompts
        for kind in ("control", "target")
        if kind in prompt and images.files
    ]
    return [
        *references,
        *(
            images.files[step, row]
            for step in images.shown
            for row in images.rows
            if (step, row) in images.files
        ),
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
    kinds = [k for k in ("control", "target") if any(k in p for p in images.prompts)]
    head = [*kinds, *(f"step {step:,}" for step in images.shown)]
    rows: list[Child] = []
    for name in images.rows:
        prompt = _prompt_of(name, images.prompts)
        said = prompt.get("prompt", Path(name).stem)
        cells = [
            _cell(
                run.path / "validation" / prompt[kind] if kind in prompt else None,
                encoded,
                f"{kind}: {said}",
            )
            for kind in kinds
        ]
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
    return tag("td", tag("img", src=encoded[path], alt=alt))


def _prompt_of(name: str, prompts: list[dict[str, str]]) -> dict[str, str]:
    """The prompt of `prompt-N.png` or `prompt-N-M.png`; empty for other files."""
    match = re.match(r"prompt-(\d+)\D", name)
    number = int(match[1]) if match else len(prompts)
    return prompts[number] if number < len(prompts) else {}


def _prompts(folder: Path) -> list[dict[str, str]]:
    """prompts.json. It serves as captions, so that images without it are shown all the same, and
    so they are if it is damaged or being written."""
    try:
        content = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    entries = content if isinstance(content, list) else []
    return [
        {name: value for name, value in entry.items() if isinstance(value, str)}
        if isinstance(entry, dict)
        else {}
        for entry in entries
    ]


def _numbers(name: str) -> list[tuple[int, str]]:
    """Sorts `prompt-2` before `prompt-10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
