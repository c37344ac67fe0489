"""A finished run, written by hand, and a stand-in for the hub."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from launcher import cli
from launcher.training.safetensors_files import TensorInfo, header_bytes

_SERVER = Path(__file__).with_name("hub_server.py")
_SPEC = importlib.util.spec_from_file_location("hub_server", _SERVER)
hub_server = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hub_server)

CONFIG = """
recipe: flux_controlnet
model:
  pretrained_model_name_or_path: black-forest-labs/FLUX.1-dev
  num_double_layers: 2
  num_single_layers: 1
data:
  dataset_name: {data}
  cache_dir: {cache}
  conditioning: canny
  resolution: [64, 96]
train:
  output_dir: {run}
  train_batch_size: 2
  gradient_accumulation_steps: 3
  max_train_steps: 40
  learning_rate: 1.0e-05
  ema_decay: 0.99
precision:
  mixed_precision: bf16
tracking:
  report_to: wandb
  tracker_project_name: acme
"""


def weights(number):
    """A safetensors file with one tensor."""
    header = header_bytes({"x": TensorInfo("U8", (3000,))})
    return header + bytes([number]) * 3000


def part(computation, attention, trained):
    stored = {"float32": {"parameters": 3, "bytes": 12}}
    asked = dict(computation=computation, attention=attention, trained=trained)
    return {"stored": stored, "trained": stored if trained else {}, "asked": asked}


PRECISION = {
    "parts": {
        "transformer": part("bfloat16", "bfloat16", False),
        "controlnet": part("bfloat16", "float32", True),
    },
    "notes": [],
}


@pytest.fixture
def make_run(tmp_path):
    """Write a finished run: `make_run("first", config="...", files=[...])`; its folder."""

    def make(name="first", config=CONFIG, files=()):
        run = tmp_path / "clients" / "acme" / name
        run.mkdir(parents=True)
        places = dict(
            data=tmp_path / "clients" / "acme" / "photos", cache=tmp_path / "secret-cache"
        )
        (run / "config.yaml").write_text(config.format(run=run, **places))
        exported = files or [
            f"{folder}controlnet/{file}"
            for folder in ("", "ema/")
            for file in ("config.json", "diffusion_pytorch_model.safetensors")
        ]
        for number, file in enumerate(exported):
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            config = b'{"n": %d}' % number
            (run / file).write_bytes(weights(number) if file.endswith("s") else config)
        (run / "exported.json").write_text(json.dumps({"step": 40, "files": exported}))
        lines = [{"step": step, "loss": 1 / step, "skipped": False} for step in range(1, 41)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "validation").mkdir()
        figures = {"step": 40, "loss": 0.125, "loss_without_control": 0.5, "samples": 8}
        (run / "validation" / "figures.jsonl").write_text(
            json.dumps({"step": 20, "loss": 0.75}) + "\n" + json.dumps(figures) + "\n"
        )
        (run / "validation" / "grid.png").write_bytes(b"\x89PNG" + os.urandom(500))
        (run / "precision.json").write_text(json.dumps(PRECISION))
        (run / "checkpoint-20").mkdir()
        (run / "checkpoint-20" / "state.safetensors").write_bytes(b"s" * 100)
        provenance = {
            "command_line": ["--config", f"{tmp_path}/clients/acme/private.yaml"],
            "working_directory": str(tmp_path),
            "local_options": ["data.dataset_name", "data.cache_dir", "train.output_dir"],
            "started": "2026-01-02T03:04:05Z",
            "device": "CPU",
            "world_size": 1,
            "python": {"version": "3.11.2", "executable": f"{tmp_path}/bin/python"},
            "plugins": [{"name": "v", "file": f"{tmp_path}/clients/acme/v.py", "sha256": "ab"}],
            "platform": {"system": "Linux", "release": "6.1-acme"},
            "packages": {"mindspore": "2.10.0", "mindone": "0.5.0", "acme-tools": "1"},
        }
        (run / "provenance.json").write_text(json.dumps(provenance))
        return run

    return make


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, which this process takes for the hub."""
    import huggingface_hub.constants as constants
    from huggingface_hub.utils._http import reset_sessions

    reset_sessions()  # one that was made while HF_HUB_OFFLINE was set stays offline
    with hub_server.HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        yield server


@pytest.fixture
def launch(monkeypatch, capsys):
    """Run the launcher in this process: exit code, output, errors."""
    from launcher import quiet

    monkeypatch.setattr(quiet, "install", lambda verbose: None)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def contents(folder):
    """Every file below a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def files_of():
    return contents
