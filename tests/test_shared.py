"""The recipes share what they have in common: they neither repeat each other nor grow large."""

from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("flux_controlnet_plugin", "flux_lora_plugin")
RUN = 6  # equal lines in a row that count as a repetition
LIMIT = 550  # lines of code of a recipe that it takes to train
#: Its options, and what it says and shows of the result.
SHOWS = ("figures.py", "validation.py", "images.py", "vae_process.py", "sample.py")
APART = ("config.py", "card.py", *SHOWS)


def source_lines(package: Path) -> dict[str, list[str]]:
    """Lines of every file that say something, without indentation."""
    return {
        path.name: [line.strip() for line in path.read_text().splitlines() if line.strip()]
        for path in sorted(package.rglob("*.py"))
    }


def runs(package: Path) -> dict[tuple[str, ...], str]:
    """Every run of RUN lines, with the file it stands in."""
    return {
        tuple(lines[i : i + RUN]): name
        for name, lines in source_lines(package).items()
        for i in range(len(lines) - RUN + 1)
    }


def repetitions(one: Path, other: Path) -> list[str]:
    first, second = runs(one), runs(other)
    return [f"{first[r]}, {second[r]}: {' | '.join(r)}" for r in first.keys() & second.keys()]


@pytest.mark.parametrize(("one", "other"), list(combinations(RECIPES, 2)))
def test_recipes_do_not_repeat_each_other(one, other):
    assert repetitions(ROOT / one, ROOT / other) == []


def test_a_repetition_is_found(tmp_path):
    shared = [f"line({i})" for i in range(RUN)]
    files = {"a": ["start()", *shared], "b": ["other()", "", *shared], "c": shared[1:]}
    for name, lines in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.py").write_text("\n".join(lines))
    assert len(repetitions(tmp_path / "a", tmp_path / "b")) == 1
    assert repetitions(tmp_path / "a", tmp_path / "c") == []


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold code."""
    import ast

    tree = ast.parse(path.read_text())
    strings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    documentation = {n for s in strings for n in range(s.lineno, s.end_lineno + 1)}
    lines = path.read_text().splitlines()
    code = {
        number
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.strip().startswith("#")
    }
    return code - documentation


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_stays_small(recipe):
    sizes = defaultdict(int)
    for path in (ROOT / recipe).rglob("*.py"):
        if path.name not in APART:
            sizes[path.name] = len(code_lines(path))
    assert sum(sizes.values()) <= LIMIT, dict(sizes)
