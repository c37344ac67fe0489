"""What setup.cfg promises is there, and the pins and files that go with it agree."""

import ast
import configparser
import fnmatch
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12")


@pytest.fixture(scope="module")
def config():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def packages(config) -> list[str]:
    return [name for name in lines(config["options.packages.find"]["include"]) if "*" not in name]


def committed_files() -> list[Path]:
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# ---------------------------------------------------------------------------------------------
# Requirements and pins
# ---------------------------------------------------------------------------------------------


def requirements(config) -> list[Requirement]:
    extras = config["options.extras_require"].values()
    return [
        Requirement(line)
        for block in (config["options"]["install_requires"], *extras)
        for line in lines(block)
    ]


def pins() -> list[Requirement]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return [Requirement(line) for line in lines(text) if not line.startswith("#")]


def pinned_versions(python: str) -> dict[str, str]:
    found = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            (specifier,) = pin.specifier
            assert specifier.operator == "==", pin
            assert canonicalize_name(pin.name) not in found, f"{pin.name} is pinned twice"
            found[canonicalize_name(pin.name)] = specifier.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_range(config, python):
    versions = pinned_versions(python)
    for requirement in requirements(config):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not pinned for Python {python}: make constraints"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_everything_that_would_be_installed_is_pinned():
    """Follows the requirements of what is installed here, from the distribution itself."""
    versions = pinned_versions("{}.{}".format(*sys.version_info))
    todo, seen = [("flux-controlnet-plugin", frozenset({"dev"}))], set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            marker = requirement.marker
            wanted = marker is None or any(marker.evaluate({"extra": e}) for e in {"", *extras})
            if wanted:
                assert canonicalize_name(requirement.name) in versions, f"{name} needs {text}"
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    assert len(seen) > 40


def test_torch_is_no_dependency():
    names = {canonicalize_name(pin.name) for pin in pins()}
    assert not names & {"torch", "diffusers", "torchvision", "accelerate"}


# ---------------------------------------------------------------------------------------------
# Packages, package data, entry points
# ---------------------------------------------------------------------------------------------


def test_installed_version_is_that_of_setup_cfg(config):
    assert metadata.version("flux-controlnet-plugin") == config["metadata"]["version"]


def test_every_package_with_an_entry_exists(config):
    assert [name for name in packages(config) if not (ROOT / name / "__init__.py").exists()] == []


def test_every_folder_with_modules_is_a_package(config):
    """find: skips a folder without __init__.py, and an editable install does not show it."""
    bare = {
        path.parent.relative_to(ROOT)
        for name in packages(config)
        for path in (ROOT / name).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert bare == set()


def test_every_data_file_is_declared(config):
    """A file that is not Python is installed only if package_data names it."""
    missing = []
    for path in committed_files():
        package = path.relative_to(ROOT).parts[0]
        if package in packages(config) and path.suffix != ".py":
            inside = path.relative_to(ROOT / package).as_posix()
            patterns = lines(config["options.package_data"].get(package, ""))
            if not any(fnmatch.fnmatch(inside, pattern) for pattern in patterns):
                missing.append(f"{package}/{inside}")
    assert missing == []


def test_entry_points_name_what_exists(config):
    """Read from the source: importing a recipe would import MindSpore."""
    entries = config["options.entry_points"]
    assert set(entries) >= {"console_scripts", "launcher.recipes"}
    for line in [line for block in entries.values() for line in lines(block)]:
        module, _, attribute = line.partition("=")[2].strip().partition(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        assert source.exists(), line
        if attribute:
            body = ast.parse(source.read_text(encoding="utf-8")).body
            assert attribute in {getattr(node, "name", None) for node in body}, line


def test_entry_points_are_installed(config):
    """A new entry point is not seen before the next `make setup`."""
    for group, block in config["options.entry_points"].items():
        installed = {entry.name for entry in metadata.entry_points(group=group)}
        assert {line.partition("=")[0].strip() for line in lines(block)} <= installed


def test_licence():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


# ---------------------------------------------------------------------------------------------
# Committed files
# ---------------------------------------------------------------------------------------------

# Paths of somebody's machine, and where packages were downloaded from.
MACHINE = re.compile(
    r"/home/[a-z]+/|/Users/[A-Za-z]+/|(?<![\w/])/root/|(?<![\w/.])/work/"
    r"|--(?:extra-)?index-url|--find-links|--trusted-host|\b10\.255\.\d+\.\d+"
)
SOURCES = {".py", ".cfg", ".toml", ".txt", ".md", ".yaml", ".yml", ".sh", ".json", ".jsonl", ""}


def test_no_path_or_host_of_a_machine():
    found = []
    for path in committed_files():
        if path.suffix in SOURCES and path != Path(__file__) and path.stat().st_size < 2_000_000:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if match := MACHINE.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []
