"""Write constraints.txt: one exact version of every package, for all that setup.cfg allows.

`uv pip compile --universal` resolves setup.cfg (with all extras) for each Python and platform
named under [tool.uv] in pyproject.toml, and keeps the versions already in constraints.txt where
they still fit. What it prints repeats the whole environment on every line; a constraint needs a
marker only where the version differs between Pythons, so the lines are rewritten in that form.

    make constraints                        keep what fits, add what is missing
    make constraints UPGRADE=--upgrade      newest versions within the ranges of setup.cfg

Afterwards `make test` on each Python that setup.cfg allows shows whether the new set works.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.10", "3.11", "3.12"]
MACHINES = ["x86_64", "aarch64"]
HEADER = """\
# Exact versions of everything `make setup` installs, on Linux x86-64 and aarch64, Python
# 3.10 to 3.12. Written by `make constraints` from the ranges in setup.cfg; edit those instead.
"""


def resolve(extra: list[str]) -> list[Requirement]:
    """All pins with uv's markers. `extra` is passed on to uv."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "constraints.txt")
        if (ROOT / "constraints.txt").exists():
            output.write_text((ROOT / "constraints.txt").read_text())
        command = ["uv", "pip", "compile", "--universal", "--no-python-downloads", "--quiet"]
        command += ["--no-annotate", "--no-header", "--python-version", PYTHONS[0]]
        command += ["--all-extras", "setup.cfg", "--output-file", str(output), *extra]
        subprocess.run(command, cwd=ROOT, check=True)
        return [Requirement(line) for line in output.read_text().splitlines() if line.strip()]


def environment(python: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def merge(pins: list[Requirement]) -> list[str]:
    """One line per package, or one per version with a marker where Pythons differ."""
    versions: dict[str, dict[str, set[str]]] = {}
    for pin in pins:
        for python in PYTHONS:
            for machine in MACHINES:
                if pin.marker is None or pin.marker.evaluate(environment(python, machine)):
                    pythons = versions.setdefault(pin.name, {})
                    pythons.setdefault(str(pin.specifier), set()).add(python)
    lines = []
    for name in sorted(versions, key=lambda name: re.sub(r"[-_.]+", "-", name).lower()):
        by_version = versions[name]
        seen = sorted(
            (python for used in by_version.values() for python in used), key=PYTHONS.index
        )
        if len(seen) != len(set(seen)):
            raise SystemExit(f"{name}: differs between {' and '.join(MACHINES)}: {by_version}")
        if len(by_version) == 1:
            lines.append(name + next(iter(by_version)))
            continue
        for specifier, used in sorted(
            by_version.items(), key=lambda item: min(map(PYTHONS.index, item[1]))
        ):
            marker = " or ".join(
                f'python_version == "{python}"' for python in sorted(used, key=PYTHONS.index)
            )
            lines.append(f"{name}{specifier} ; {marker}")
    return lines


if __name__ == "__main__":
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(merge(resolve(sys.argv[1:]))) + "\n")
