"""Imports point one way: recipes -> flux_common -> launcher.training; launcher, recipes -> hooks.

The imports are read from the source, so nothing is executed, and between the parts of the product
every import counts: at the top of a file, inside a function, under TYPE_CHECKING. Two distinctions
are made. launcher.cpu changes MindSpore, and only a run on a CPU wants that: one module imports it,
inside a function. And the contract may name numpy's and MindSpore's types under TYPE_CHECKING,
while it imports neither when it runs.
"""

import ast
import configparser
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("flux_controlnet_plugin", "flux_lora_plugin")

# The parts of the product, and the parts that each of them may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "hooks": set(),
    "launcher": {"hooks", "launcher.training"},
    "launcher.training": {"launcher.cpu"},
    "launcher.cpu": {"launcher.training"},
    "flux_common": {"launcher.training"},
    **{recipe: {"flux_common", "launcher.training", "hooks"} for recipe in RECIPES},
}

SUBSTITUTES_USER = "launcher.training.device"
PLUGGY_USERS = ("hooks", "launcher.plugins")
HOOKS_TYPES = ("numpy", "mindspore")  # for type annotations in the contract
FORBIDDEN = ("torch", "diffusers")  # a reference to compare with, never a dependency


class Import(NamedTuple):
    module: str  # the file that imports, as a module name
    target: str  # what it imports, as far as it is known to be a module
    where: str  # file:line
    lazy: bool  # inside a function
    typing: bool  # under `if TYPE_CHECKING:`


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def part_of(module: str) -> str | None:
    """The most specific part of the product that holds `module`; None for other packages."""
    return max((part for part in ALLOWED if within(module, part)), key=len, default=None)


def targets(node: ast.AST, package: str) -> list[str]:
    """Modules named by an import statement, or by importlib.import_module("literal").

    `from a import b` names both a and a.b: b may be a module, and `from launcher import cpu` must
    not go unseen.
    """
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            base = ".".join([*parents, *([module] if module else [])])
            return [f"{base}.{alias.name}" for alias in names]
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def imports_of(path: Path, root: Path) -> list[Import]:
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []

    def visit(node: ast.AST, lazy: bool, typing: bool) -> None:
        for target in targets(node, package):
            where = f"{path.relative_to(root)}:{node.lineno}"
            found.append(Import(module, target, where, lazy, typing))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, lazy, True)
            for child in node.orelse:
                visit(child, lazy, typing)
            return
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or inside, typing)

    visit(ast.parse(path.read_text(encoding="utf-8")), lazy=False, typing=False)
    return found


def problem(item: Import) -> str | None:
    """What is wrong with one import, or None."""
    source, target = part_of(item.module), part_of(item.target)
    top = item.target.partition(".")[0]
    if top in FORBIDDEN:
        return f"{top} is not a dependency"
    if top == "pluggy" and not any(within(item.module, user) for user in PLUGGY_USERS):
        return "pluggy is used by hooks and launcher.plugins only"
    if target is None:
        allowed = {"pluggy", *sys.stdlib_module_names, *(HOOKS_TYPES if item.typing else ())}
        if source == "hooks" and top not in allowed:
            return "hooks imports the standard library and pluggy only"
        return None
    if target == source:
        return None
    if target not in ALLOWED[source]:
        return f"{source} must not import {target}"
    if target == "launcher.cpu" and (item.module != SUBSTITUTES_USER or not item.lazy):
        return f"launcher.cpu is imported by {SUBSTITUTES_USER} only, inside a function"
    return None


def violations(root: Path) -> list[str]:
    files = [
        path for part in ALLOWED if "." not in part for path in sorted((root / part).rglob("*.py"))
    ]
    return [
        f"{item.where}: imports {item.target}: {message}"
        for path in files
        for item in imports_of(path, root)
        if (message := problem(item))
    ]


def test_imports_point_one_way():
    assert violations(ROOT) == []


def test_every_installed_package_has_its_rule():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = config["options.packages.find"]["include"].split()
    assert {name for name in packages if not name.endswith(".*")} <= set(ALLOWED)


# Each of these is one file of a synthetic project, and must be found wrong (or right).
WRONG = {
    "a recipe imports another": (
        "flux_lora_plugin/recipe.py",
        "import flux_controlnet_plugin.loss",
    ),
    "a recipe imports the launcher": ("flux_controlnet_plugin/a.py", "from launcher import config"),
    "a recipe imports the launcher's package": ("flux_controlnet_plugin/a.py", "import launcher"),
    "common code imports a recipe": (
        "flux_common/latents.py",
        "def f():\n    from flux_controlnet_plugin.config import Config",
    ),
    "common code imports the contract": ("flux_common/a.py", "from hooks.types import Models"),
    "the launcher knows a recipe": (
        "launcher/pipeline.py",
        'import importlib\nimportlib.import_module("flux_controlnet_plugin.recipe")',
    ),
    "the toolkit imports the launcher": ("launcher/training/step.py", "from launcher import cli"),
    "the toolkit imports it relatively": ("launcher/training/step.py", "from ..config import Any"),
    "the toolkit imports the contract": ("launcher/training/step.py", "import hooks"),
    "the toolkit imports pluggy": ("launcher/training/step.py", "import pluggy"),
    "the toolkit imports the substitutes": (
        "launcher/training/step.py",
        "def f():\n    import launcher.cpu",
    ),
    "the substitutes import the launcher": (
        "launcher/cpu/norms.py",
        "from launcher import config",
    ),
    "the substitutes are imported at the top": (
        "launcher/training/device.py",
        "from launcher import cpu",
    ),
    "the launcher imports the substitutes": (
        "launcher/pipeline.py",
        "def f():\n    import launcher.cpu",
    ),
    "the contract imports numpy": ("hooks/types.py", "import numpy"),
    "typing counts between the parts": (
        "flux_common/latents.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from launcher.config import A",
    ),
    "the contract's types come from two packages": (
        "hooks/types.py",
        "import typing\nif typing.TYPE_CHECKING:\n    import jax",
    ),
    "pluggy elsewhere in the launcher": ("launcher/cli.py", "from pluggy import PluginManager"),
    "torch": ("launcher/training/step.py", "def f():\n    import torch.nn"),
    "diffusers": ("flux_common/loading.py", "from diffusers import FluxPipeline"),
}
RIGHT = {
    "the contract's types": (
        "hooks/types.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mindspore import nn",
    ),
    "lazy substitutes": (
        "launcher/training/device.py",
        "def f():\n    from launcher import cpu",
    ),
    "pluggy in plugins.py": ("launcher/plugins.py", "import pluggy\nimport hooks.specs"),
    "mindone's diffusers": (
        "flux_common/loading.py",
        "from mindone.diffusers import AutoencoderKL",
    ),
    "a recipe's three": (
        "flux_controlnet_plugin/recipe.py",
        "from hooks import hookimpl\nfrom flux_common import latents\n"
        "from launcher.training.step import TrainStep\nfrom . import loss",
    ),
    "relative within a part": ("launcher/training/step.py", "from .errors import UserError"),
}


def write(root: Path, name: str, source: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text(textwrap.dedent(source))


@pytest.mark.parametrize(("name", "source"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_import_is_found(tmp_path, name, source):
    write(tmp_path, name, source)
    (found,) = violations(tmp_path)
    assert found.startswith(f"{name}:{len(source.splitlines())}: ")


@pytest.mark.parametrize(("name", "source"), RIGHT.values(), ids=RIGHT.keys())
def test_a_right_import_is_left_alone(tmp_path, name, source):
    write(tmp_path, name, source)
    assert violations(tmp_path) == []
