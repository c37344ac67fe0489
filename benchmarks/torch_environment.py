"""The environment of the torch side: `python benchmarks/torch_environment.py` makes it.

torch and diffusers live in `.venv-torch` in the root of the repository, apart from everything
that the launcher needs. A second call finds it and does nothing; changed requirements
(`reference/requirements.txt`) install again. Prints the path of its Python.

pip installs from whatever index it is set to. Where that offers torch with CUDA by default, an
index of CPU builds in `PIP_EXTRA_INDEX_URL` saves gigabytes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-torch"
REQUIREMENTS = Path(__file__).resolve().parent / "reference" / "requirements.txt"


def torch_python() -> Path:
    """Python of the torch environment, which is made if need be."""
    python = FOLDER / "bin" / "python"
    installed = FOLDER / "requirements.txt"  # written last: an interrupted call starts anew
    wanted = REQUIREMENTS.read_text()
    if not installed.is_file() or installed.read_text() != wanted:
        print(f"installing torch and diffusers into {FOLDER} ...", file=sys.stderr, flush=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
        subprocess.run(install, check=True, stdout=sys.stderr)
        installed.write_text(wanted)
    return python


if __name__ == "__main__":
    print(torch_python())
