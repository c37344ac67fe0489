"""The page-long launcher of examples/ trains both recipes through the contract alone."""

import ast
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.test_run import ROOT

SCRIPT = ROOT / "examples" / "own_launcher.py"


def test_it_is_a_page_and_knows_the_contract_and_the_toolkit_only():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 85
    allowed = {*sys.stdlib_module_names, "pluggy", "yaml", "hooks"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        else:
            continue
        for name in names:
            toolkit = name == "launcher.training" or name.startswith("launcher.training.")
            assert toolkit or name.partition(".")[0] in allowed, name


def test_it_calls_every_hook_in_the_documented_order():
    from hooks import specs

    text = SCRIPT.read_text(encoding="utf-8")
    tree = ast.parse(text)
    calls = [
        (node.lineno, node.col_offset, node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "hook"
    ]
    called = [name for *_, name in sorted(calls)]
    documented = [name for name in vars(specs) if hasattr(getattr(specs, name), "kind")]
    # The first two are no part of a run, verbs of the launcher call them; the page-long launcher
    # writes no checkpoints.
    left_out = (
        *("inspect_data", "estimate_memory", "on_checkpoint"),
        *("build_validation", "validate", "describe_model", "sample"),
    )
    documented = [name for name in documented if name not in left_out]
    assert set(called) == set(documented)
    # The precompute stage builds and casts parts too, before the train stage does.
    stage = ["build_models", "apply_precision"]
    start = called.index("build_models")
    assert called[start : start + 2] == stage
    once = called[:start] + called[start + 2 :]
    order = [n for n in documented if not n.startswith(("on_", "export", "describe"))]
    assert [n for n in once if n in order] == order
    end = ["on_train_start", "train_step", "on_step_end", "export_weights", "on_train_end"]
    assert once[-5:] == end


@pytest.mark.parametrize(
    "recipe, config, weights, moved",
    [
        ("flux_controlnet", "tests/data/tiny.yaml",
         "controlnet/diffusion_pytorch_model.safetensors", "controlnet_blocks.0.weight"),
        ("flux_lora_dreambooth", "tests/data/tiny_lora.yaml", "pytorch_lora_weights.safetensors",
         "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"),
    ],
)  # fmt: skip
def test_it_trains(recipe, config, weights, moved, tmp_path):
    process = subprocess.run(
        [sys.executable, str(SCRIPT), recipe, config, str(tmp_path / "run"), "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    losses = ast.literal_eval(process.stdout.splitlines()[-1])
    assert len(losses) == 3 and len(set(losses)) == 3
    assert all(0.5 < loss < 3 for loss in losses)
    # It starts at zero.
    assert np.any(load_file(tmp_path / "run" / weights)[moved])
