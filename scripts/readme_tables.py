"""Write the tables of README.md that come from the code: hooks and options.

python scripts/readme_tables.py            # writes README.md
python scripts/readme_tables.py --check    # exit code 1 if it is not up to date
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from flux_controlnet_plugin.config import SECTIONS as CONTROLNET_SECTIONS
from flux_lora_plugin.config import SECTIONS as LORA_SECTIONS
from hooks import specs
from launcher.config import options_table
from launcher.sections import SECTIONS

README = Path(__file__).resolve().parent.parent / "README.md"


def hooks_table() -> str:
    """A row per specification, in the order of the file, which is the order of the calls."""
    rows = ["| hook | kind | what it does |", "| --- | --- | --- |"]
    for name, spec in vars(specs).items():
        if inspect.isfunction(spec) and hasattr(spec, "kind"):
            arguments = ", ".join(inspect.signature(spec).parameters)
            summary = (inspect.getdoc(spec) or "").split("\n")[0]
            rows.append(f"| `{name}({arguments})` | {specs.kind_of(spec)} | {summary} |")
    return "\n".join(rows) + "\n"


def lora_table(options: str) -> str:
    """The rows of the LoRA recipe that are not in another recipe's table."""
    rows = options_table(LORA_SECTIONS).splitlines(keepends=True)
    known = set(options.splitlines(keepends=True)[2:])
    return "".join(row for row in rows if row not in known)


def updated(readme: str) -> str:
    """README.md with its generated tables made anew."""
    options = options_table({**SECTIONS, **CONTROLNET_SECTIONS})
    tables = {"hooks": hooks_table(), "options": options, "LoRA options": lora_table(options)}
    for name, table in tables.items():
        pattern = rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
        readme, count = re.subn(
            pattern, lambda m, t=table: f"{m[1]}\n{t}\n{m[2]}", readme, flags=re.S
        )
        assert count == 1, f"README.md has {count} places for the table of {name}"
    return readme


def main() -> None:
    readme = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(updated(readme) != readme)
    README.write_text(updated(readme), encoding="utf-8")


if __name__ == "__main__":
    main()
