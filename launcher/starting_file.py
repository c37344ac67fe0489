"""A commented configuration file to start from: what `launcher cp` writes.

Every option stands in it with what it does and what it takes. Those that a run needs hold a
placeholder, which `launcher.config.resolve` refuses; all others are commented out at their
defaults. Comments are `# text`, options are `#name: value`, so removing one character sets one.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from launcher.config import PLACEHOLDER, OptionInfo, Source, as_yaml, list_options
from launcher.training.errors import UserError

WIDTH = 92


def starting_file(
    name: str,
    recipe: str,
    plugins: Sequence[str],
    sections: Mapping[str, type],
    brought: Sequence[Source],
) -> str:
    """The text of a starting file.

    Args:
        name: how the file is called in the commands that its head names.
        recipe: the recipe's name.
        plugins: variants, as the file is to name them.
        sections: dataclasses by section name.
        brought: the recipe's own YAML file, which changes the defaults.
    """
    options = list_options(sections, brought)
    commands = {
        f"launcher config --config {name}": "what is set, and where",
        f"launcher --config {name} --dry-run": "checks everything, loads no weights",
        f"launcher --config {name}": "trains",
    }
    width = max(map(len, commands))
    lines = [
        f"# A run of the recipe {recipe}. Write a value for every {PLACEHOLDER}. A line without a",
        "# space after its `#` is an option at its default: to change it, remove the `#`.",
        "#",
        *(f"#   {command:<{width}}  # {what}" for command, what in commands.items()),
        "",
        f"recipe: {as_yaml(recipe)}",
    ]
    if plugins:
        lines.append(f"plugins: {as_yaml(list(plugins))}")
    for section, section_type in sections.items():
        lines += ["", *_comment(_summary(section, section_type), ""), f"{section}:"]
        blocks = [_option(option) for option in options if option.section == section]
        lines.append("\n\n".join(map("\n".join, blocks)))
    return "\n".join(lines) + "\n"


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises:
        UserError: there is such a file already, or it cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink()
                raise
    except FileExistsError:
        raise UserError(
            f"{path} is there already, and nothing is written over; give another name."
        ) from None
    except FileNotFoundError:
        raise UserError(
            f"there is no folder {path.parent}; make it first, with `mkdir -p {path.parent}`."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None


def _option(option: OptionInfo) -> Iterator[str]:
    instead = option.is_asked and not option.is_required
    note = "; delete the line if another option takes its place" if instead else ""
    yield from _comment(f"{option.help} ({option.takes}){note}", "  ")
    if option.is_asked:
        yield f"  {option.name}: {PLACEHOLDER}"
    else:
        yield f"  #{option.name}: {as_yaml(option.default)}"


def _summary(section: str, section_type: type) -> str:
    """The first line of a section's documentation, without the name that stands below it."""
    text = (inspect.getdoc(section_type) or "").partition("\n")[0]
    if text.startswith(f"{section_type.__name__}("):  # what @dataclass puts where there is none
        return ""
    text = text.removeprefix(f"`{section}`: ").rstrip(".")
    return text[:1].upper() + text[1:]


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_long_words=False,
        break_on_hyphens=False,
    )
