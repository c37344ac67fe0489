"""The frameworks' known noise is gone, everything else is shown, and `-v` shows it all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(program, *, verbose=False, python=(), **environment):
    """What a program shows that starts as a run does: (stdout, stderr)."""
    start = f"from launcher import quiet\nquiet.install(verbose={verbose})\n"
    # None takes a variable away: what this test runs under must not decide.
    unset = ("GLOG_v", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TOKENIZERS_PARALLELISM")
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    for name in unset:
        if name not in environment:
            variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, *python, "-c", start + program],
        env=variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# With the real frameworks

FRAMEWORKS = """
import sys
import datasets
import mindspore
from mindspore import nn
import mindspore.common.api  # deprecated in 2.9
import mindone.diffusers.training_utils
from mindone.diffusers import FluxTransformer2DModel
from mindone.transformers import CLIPTextModel, T5EncoderModel

model = FluxTransformer2DModel(
    in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
    num_attention_heads=1, joint_attention_dim=8, pooled_projection_dim=8,
    axes_dims_rope=(4, 4, 8),
)
numbers = datasets.Dataset.from_dict({"n": [1, 2, 3]})
numbers.map(lambda row: {"twice": 2 * row["n"]})
"""

NOISE = [
    "None of PyTorch",
    "Config not found for",
    "is deprecated",
    "[WARNING] ME(",
    "Map:",
    "Cell.__del__",
]


def test_a_normal_run_shows_nothing_of_the_frameworks():
    assert run(FRAMEWORKS) == ("", "")


def test_verbose_shows_all_of_it():
    # If one of these is gone from the frameworks, what quiet.py does about it can go too.
    shown = "".join(run(FRAMEWORKS, verbose=True))
    assert [text for text in NOISE if text not in shown] == []


def test_an_error_of_mindspore_is_shown():
    _, stderr = run("from mindspore import log\nlog.error('no such kernel')\nlog.warning('hm')")
    assert "no such kernel" in stderr
    assert "hm" not in stderr


# What is not noise (with stand-ins for the frameworks, which take seconds to import)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Make a module of a framework's name that the programs import instead."""
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", f"{tmp_path}:{REPOSITORY}")

    def make(name, text):
        *packages, module = name.split(".")
        folder = tmp_path
        for package in packages:
            folder = folder / package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        (folder / f"{module}.py").write_text(text)

    return make


def test_prints_of_the_same_module_that_are_not_known_are_shown(stand_in):
    stand_in(
        "transformers.utils.auto_docstring",
        'def check(text):\n    print(text)\n    print("second", "value", sep="-")\n    print()\n',
    )
    program = """
from transformers.utils.auto_docstring import check
check("🚨 Config not found for parakeet. You can")
check("🚨 Something else")
print("🚨 Config not found for a plugin")
"""
    stdout, stderr = run(program)
    assert stdout == (
        "second-value\n\n🚨 Something else\nsecond-value\n\n🚨 Config not found for a plugin\n"
    )
    assert stderr == ""


def test_a_module_that_is_imported_already_is_changed_too(stand_in):
    stand_in("transformers.utils.auto_docstring", "def check(text):\n    print(text)\n")
    program = """
from transformers.utils.auto_docstring import check
quiet.install(verbose=False)
check("🚨 Config not found for parakeet")
"""
    # The first call has put the change in place before the import; the second does it again.
    assert run(program) == ("", "")


def test_a_missing_framework_is_still_reported_as_missing():
    program = """
try:
    import transformers.utils.auto_docstring
except ModuleNotFoundError as error:
    print(error)
"""
    stdout, _ = run(
        "import sys\nsys.path[:] = [p for p in sys.path if 'site-' not in p]\n" + program
    )
    assert stdout == "No module named 'transformers'\n"


def test_other_messages_of_the_same_loggers_are_shown():
    program = """
import logging
known = "None of PyTorch, TensorFlow >= 2.0, or Flax have been found. Models won't be available"
logging.getLogger("transformers").warning(known)
logging.getLogger("transformers").warning("Something %s", "else")
logging.getLogger("transformers.modeling_utils").warning("None of the weights fit")
"""
    assert run(program) == ("", "Something else\nNone of the weights fit\n")


@pytest.mark.parametrize("category", ["DeprecationWarning", "FutureWarning"])
def test_deprecations_within_a_framework_are_not_shown_and_other_warnings_are(stand_in, category):
    stand_in(
        "mindone.blocks",
        f"import warnings\n"
        f"def old(level):\n    warnings.warn('old', {category}, stacklevel=level)\n"
        f"def odd():\n    warnings.warn('odd values')\n",
    )
    stand_in("mindone_extras", "import warnings\nwarnings.warn('not mindone', FutureWarning)\n")
    _, stderr = run("from mindone.blocks import old, odd\nold(1)\nodd()\nimport mindone_extras")
    assert ": old" not in stderr
    assert "UserWarning: odd values" in stderr
    assert "FutureWarning: not mindone" in stderr
    # Addressed to its caller, who is no framework.
    assert f"{category}: old" in run("from mindone.blocks import old\nold(2)")[1]


def test_what_the_user_has_set_stays(stand_in):
    program = "import os\nprint(os.environ['GLOG_v'], os.environ['TOKENIZERS_PARALLELISM'])"
    assert run(program)[0] == "3 false\n"
    assert run(program, GLOG_v="1", TOKENIZERS_PARALLELISM="true")[0] == "1 true\n"
    stand_in("mindone.blocks", "import warnings\nwarnings.warn('old', FutureWarning)\n")
    assert "FutureWarning: old" in run("import mindone.blocks", python=["-W", "default"])[1]


def test_what_a_plugin_leaves_unmended_at_exit_is_shown():
    program = """
class Tracker:
    def __del__(self):
        raise RuntimeError("connection lost")

tracker = Tracker()
"""
    assert "RuntimeError: connection lost" in run(program)[1]
