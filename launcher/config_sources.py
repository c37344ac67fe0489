"""Reading what a user wrote: YAML files and `name=value` arguments, with the line of each value.

YAML is read as a tree of nodes, not as Python objects: nodes know their line, their text as it was
written, and whether a key occurs twice.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.config_values import COMMAND_LINE, Given
from launcher.training.errors import UserError, refuse

#: (section, option); the section is None where the command line gave the option alone.
Key = tuple["str | None", str]


@dataclass(frozen=True)
class Source:
    """What one file, or the command line, sets.

    Attributes:
        label: the file as the user named it, or `command line`.
        values: what is set, in the order written.
        recipe: the top-level key `recipe` of a file.
        plugins: the top-level key `plugins` of a file.
        sections: the other top-level keys of a file. What stands below one of them is in
            `values`, if it is a mapping.
        problems: mistakes in its form, which `resolve` reports together with all others.
    """

    label: str
    values: Mapping[Key, Given]
    recipe: str | None = None
    plugins: Sequence[str] = ()
    sections: Mapping[str, Given] = field(default_factory=dict)
    problems: Sequence[str] = ()


def read_yaml(path: Path) -> Source:
    """Read a YAML file of sections.

    Raises:
        UserError: there is no such file, it is not YAML or not a mapping, or its `recipe` or
            `plugins` cannot be used. Lesser mistakes are left to `resolve`.
    """
    import yaml

    text = _read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        try:
            return _FileReader(str(path), loader).read(loader.get_single_node())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UserError(_syntax_error(path, error, text)) from None
    except RecursionError:
        raise UserError(
            f"{path} is nested too deeply, or an alias (`*name`) in it refers to what it is "
            "part of; write the values out."
        ) from None


def read_overrides(arguments: Sequence[str]) -> Source:
    """Read `section.option=value` arguments, or `option=value` where only one section has it.

    The first `=` separates; what follows may hold any character.
    """
    values: dict[Key, Given] = {}
    problems = []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        section, dot, option = name.rpartition(".")
        if not equals or not option or (dot and not section):
            problems.append(f"`{argument}` is not of the form section.option=value.")
            continue
        key = (section if dot else None, option)
        if key in values:
            problems.append(
                f"{name} is given twice on the command line: `{name}={values[key].text}` and "
                f"`{argument}`; leave one of them out."
            )
        values[key] = _given_as_argument(text)
    return Source(COMMAND_LINE, values, problems=problems)


def _given_as_argument(text: str) -> Given:
    """The value, with its text as typed: to a string, quotes and `#` belong."""
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        given = _given(loader.get_single_node(), COMMAND_LINE)
    except (yaml.YAMLError, RecursionError):  # such as `a: b: c`: it can only be a string
        return Given(text, text, COMMAND_LINE)
    is_list = text.lstrip().startswith("[")  # `- x` is a list in a file, here it is text
    return dataclasses.replace(given, text=text, items=given.items if is_list else None)


def _given(node: Any, label: str) -> Given:
    """A node's value. Numbers and dates stay text: the option's type decides what they are."""
    import yaml

    if node is None:
        return Given(None, "", label)
    if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
        problem = f"the tag {node.tag} has no meaning here"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    origin = label if label == COMMAND_LINE else f"{label}:{node.start_mark.line + 1}"
    if node.id == "sequence":
        items = tuple(_given(item, label) for item in node.value)
        return Given([item.value for item in items], None, origin, items)
    if node.id == "mapping":
        pairs = [
            (_given(key, label).value, _given(value, label).value) for key, value in node.value
        ]
        return Given({str(key): value for key, value in pairs}, None, origin)
    if node.tag == "tag:yaml.org,2002:null":
        return Given(None, node.value, origin)
    if node.tag == "tag:yaml.org,2002:bool":
        return Given(node.value.lower() in ("true", "yes", "on"), node.value, origin)
    return Given(node.value, node.value, origin)


class _FileReader:
    """Walks the nodes of one file and notes what is wrong with its form."""

    def __init__(self, label: str, loader: Any) -> None:
        self.label = label
        self.loader = loader
        self.problems: list[str] = []

    def read(self, root: Any) -> Source:
        if root is not None and root.id != "mapping" and self.given(None, root).value is not None:
            raise UserError(
                f"{self.label} holds no sections; write `train:` and, indented below it, "
                "`learning_rate: 1e-5`."
            )
        top = self.pairs(root) if root is not None and root.id == "mapping" else {}
        before = len(self.problems)
        recipe = self.recipe(self.given(*top.pop("recipe", (None, None))))
        plugins = self.plugins(self.given(*top.pop("plugins", (None, None))))
        if len(self.problems) > before:  # nothing can be loaded, so nothing else can be checked
            refuse(self.problems)
        values: dict[Key, Given] = {
            (section, option): self.given(*pair)
            for section, (_, node) in top.items()
            if node.id == "mapping"
            for option, pair in self.pairs(node, f"{section}.").items()
        }
        sections = {name: self.given(*pair) for name, pair in top.items()}
        return Source(self.label, values, recipe, plugins, sections, self.problems)

    def given(self, key: Any, node: Any) -> Given:
        """The value of a key, with the key's line."""
        given = _given(node, self.label)
        if key is None:
            return given
        return dataclasses.replace(given, origin=f"{self.label}:{key.start_mark.line + 1}")

    def pairs(self, mapping: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
        """Nodes of key and value, by name. A name that is set twice is noted, unless `<<` brought
        one of them.
        """
        lines: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if key.id != "scalar":
                self.problems.append(f"{self.label}:{line}: a name is expected before the colon.")
            elif key.value in lines:
                self.problems.append(
                    f"{self.label}:{line}: `{prefix}{key.value}` is set twice, first in line "
                    f"{lines[key.value]}; keep one of them."
                )
            else:
                lines[key.value] = line
        self.loader.flatten_mapping(mapping)  # puts what `<<: *defaults` brings first
        return {key.value: (key, value) for key, value in mapping.value if key.id == "scalar"}

    def recipe(self, given: Given) -> str | None:
        if given.value is None or isinstance(given.value, str):
            return given.value
        shown = given.text or given.value
        self.problems.append(f"{given.origin}: `recipe` takes one name, not {shown!r}.")
        return None

    def plugins(self, given: Given) -> Sequence[str]:
        if given.value is None:
            return ()
        if given.items is None or not all(isinstance(item.value, str) for item in given.items):
            self.problems.append(
                f"{given.origin}: `plugins` takes a list of files or names, such as "
                f"`plugins: [my_variant.py]`, not {given.value!r}."
            )
            return ()
        return [item.value for item in given.items]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {path}; {_nearby(path)}") from None
    except IsADirectoryError:
        raise UserError(f"--config {path} is a folder; give a YAML file.") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8, or give a YAML file."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def _nearby(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}."
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    meant = difflib.get_close_matches(path.name, names, n=1)
    if meant:
        return f"did you mean {folder / meant[0]}?"
    return f"{folder.resolve()} holds {', '.join(names) or 'no YAML file'}."


def _syntax_error(path: Path, error: Any, text: str) -> str:
    import yaml

    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        return (
            f"{path}:{line}:{column} is not valid YAML: the character with code "
            f"{error.character:#04x} is not allowed; remove it."
        )
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return f"{path} is not valid YAML: {problem}."
    lines = text.splitlines()
    written = lines[mark.line].strip() if mark.line < len(lines) else ""
    shown = f", at `{written}`" if written else ", at the end of the file"
    hint = next((hint for words, hint in _HINTS.items() if words in problem), "")
    return f"{path}:{mark.line + 1}:{mark.column + 1} is not valid YAML{shown}: {problem}.{hint}"


#: The way out, by words of PyYAML's message.
_HINTS = {
    "\\t": " Indent with spaces, not tabs.",
    "mapping values are not allowed": (
        " Options of a section are indented alike; a value that holds `: ` needs quotes."
    ),
    "cannot start any token": " A value that begins with this character needs quotes.",
    "could not find expected ':'": " A colon and a space belong between name and value.",
    "but found another document": " Leave out what follows the line `---`.",
    "<stream end>": " A bracket is not closed.",
    "unexpected end of stream": " A quote is not closed.",
    "undefined alias": " A value that begins with `*` needs quotes.",
}
