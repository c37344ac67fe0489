"""A whole run as a user starts it, of a small model, in a process of its own."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.event_files import scalars

ROOT = Path(__file__).resolve().parent.parent
TINY = "tests/data/tiny.yaml"
STEPS = 6
PROMPT, CONTROL = "a red circle", "tests/data/circles/conditioning_images/03.png"
WEIGHTS = "controlnet/diffusion_pytorch_model.safetensors"
#: Settings that turn the images of validations off.
WITHOUT_IMAGES = (
    *("validation_samples=0", "validation_prompt=null", "validation_image=null"),
    "validation_inference_steps=28",
)

#: What the frameworks print on a run that goes well; see launcher/quiet.py.
NOISE = re.compile(r"warning|exception|traceback|none of pytorch|parakeet|newly initialized", re.I)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(*arguments):
    process = start(*arguments)
    stdout, stderr = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def readme_variant(folder):
    """The README's example of a variant, as a file."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# my_variant\.py\n.*?)```", readme, re.S)
    path = folder / "my_variant.py"
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def run(folder):
    output_dir = folder / "first"
    process = launch(
        *("--recipe", "flux_controlnet", "--config", TINY),
        *(f"output_dir={output_dir}", f"max_train_steps={STEPS}", "lr_warmup_steps=2"),
        *("heldout_samples=2", "checkpointing_steps=4", "ema_decay=0.9"),
        *("validation_steps=2", "at_start=true"),
        *("validation_samples=1", f"validation_prompt={PROMPT}", f"validation_image={CONTROL}"),
        *("validation_inference_steps=2", "num_single_layers=1"),
        f"cache_dir={folder / 'cache'}",  # its own: what it encodes is looked at
        "report_to=tensorboard",
    )
    assert process.returncode == 0, process.stderr
    return process, output_dir


def metrics(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_normal_run_says_what_it_does_and_nothing_else(run):
    process, output_dir = run
    assert not NOISE.search(process.stderr), process.stderr
    for line in ("encoded 26 inputs in", "compiled the training step in", f"step {STEPS}/{STEPS}"):
        assert line in process.stderr
    assert process.stdout.splitlines() == [
        str(output_dir / folder / name)
        for folder in ("controlnet", "ema/controlnet")
        for name in ("config.json", "diffusion_pytorch_model.safetensors")
    ]


def test_metrics_have_a_line_a_step(run):
    _, output_dir = run
    lines = metrics(output_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["lr"] for line in lines] == [0, 5e-4, 1e-3, 1e-3, 1e-3, 1e-3]
    for line in lines:
        assert 0.5 < line["loss"] < 3
        assert line["grad_norm"] > 0
        assert line["step_seconds"] > 0
        assert 0 <= line["stall_share"] < 1
        assert line["samples_per_second"] == pytest.approx(4 / line["step_seconds"])
        assert line["skipped"] is False


def test_tensorboard_has_the_figures_of_metrics(run):
    _, output_dir = run
    shown = scalars(output_dir / "tensorboard")
    lines = metrics(output_dir)
    names = lines[0].keys() - {"step"}
    expected = {(f"train/{n}", line["step"]): float(line[n]) for line in lines for n in names}
    trained = {key: value for key, value in shown.items() if key[0].startswith("train/")}
    assert trained == pytest.approx(expected)


def test_what_ran_is_on_record(run):
    _, output_dir = run
    provenance = json.loads((output_dir / "provenance.json").read_text())
    assert provenance["recipe"] == "flux_controlnet"
    assert provenance["device"] == "CPU"
    assert provenance["packages"]["mindspore"]
    assert f"max_train_steps={STEPS}" in provenance["command_line"]
    assert {"launcher.defaults", "flux_controlnet"} == {p["name"] for p in provenance["plugins"]}


def test_exported_weights_are_a_trained_controlnet_in_diffusers_layout(run):
    _, output_dir = run
    config = json.loads((output_dir / "controlnet" / "config.json").read_text())
    assert config["_class_name"] == "FluxControlNetModel"
    assert (config["num_layers"], config["num_single_layers"]) == (1, 1)
    weights = load_file(output_dir / "controlnet" / "diffusion_pytorch_model.safetensors")
    assert all(array.dtype == np.float32 for array in weights.values())
    # The layers that start at zero have moved.
    for name in ("controlnet_blocks.0", "controlnet_single_blocks.0"):
        assert np.any(weights[f"{name}.weight"]), name


def assert_same_course(one, other):
    """All but the times is equal, bit for bit."""

    def figures(output_dir):
        keys = ("step", "loss", "lr", "grad_norm", "skipped")
        return [[line[key] for key in keys] for line in metrics(output_dir)]

    assert figures(one) == figures(other)
    log = "validation/figures.jsonl"
    assert (one / log).read_bytes() == (other / log).read_bytes()
    for name in (WEIGHTS, f"ema/{WEIGHTS}"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_its_held_out_samples_are_looked_at(run):
    _, output_dir = run
    lines = (output_dir / "validation" / "figures.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    assert [line["step"] for line in figures] == [0, 2, 4, 6]
    first, *_, last = figures
    # A fresh ControlNet does nothing, and the base model stays as it is.
    assert first["loss"] == first["loss_without_control"] == first["loss_shuffled_control"]
    assert first["residual_norm"] == 0 < last["residual_norm"]
    assert {line["loss_without_control"] for line in figures} == {first["loss"]}
    assert last["loss"] < first["loss"]


def test_its_averaged_weights_are_others(run):
    _, output_dir = run
    last, averaged = (load_file(output_dir / name) for name in (WEIGHTS, f"ema/{WEIGHTS}"))
    assert last.keys() == averaged.keys()
    name = "controlnet_blocks.0.weight"
    assert 0 < np.linalg.norm(averaged[name]) < np.linalg.norm(last[name])


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_it_is_sampled_from_as_its_last_validation_was(run, folder):
    _, output_dir = run
    before = {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")}
    process = launch(
        *("sample", str(output_dir), "--prompt", PROMPT, "--control", CONTROL, "--steps", "2"),
        *("--scale", "0", "1", "--output", str(folder / "samples")),
    )
    assert process.returncode == 0, process.stderr
    assert not NOISE.search(process.stderr), process.stderr
    names = ("prompt-0-scale-0.png", "prompt-0-scale-1.png", "grid.png")
    assert process.stdout.splitlines() == [str(folder / "samples" / name) for name in names]
    assert "encoding" not in process.stderr  # the run has kept the prompt's embeddings
    without, sampled, _ = (pixels(folder / "samples" / name) for name in names)
    validated = pixels(output_dir / "validation" / f"step-{STEPS:06}" / "prompt-0.png")
    assert np.abs(sampled - validated).max() <= 1
    fresh = pixels(output_dir / "validation" / "step-000000" / "prompt-0.png")
    assert np.abs(without - fresh).max() <= 1 < np.abs(sampled - fresh).max()
    assert {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")} == before


def test_a_controlnet_that_others_wrote_is_sampled_from(run, folder):
    """In bfloat16, in two files with an index, and with a prompt that nobody has encoded."""
    _, output_dir = run
    other = folder / "others"
    other.mkdir()
    shutil.copy(output_dir / "controlnet" / "config.json", other)
    tensors = {n: a.astype(ml_dtypes.bfloat16) for n, a in load_file(output_dir / WEIGHTS).items()}
    stem, half = "diffusion_pytorch_model", len(tensors) // 2
    parts = [dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])]
    places = {}
    for number, part in enumerate(parts, start=1):
        name = f"{stem}-{number:05}-of-00002.safetensors"
        save_file(part, other / name)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (other / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    process = launch(
        *("sample", str(other), "--base", "tests/data/one-layer-flux", "--steps", "2"),
        *("--prompt", "a blue circle", "--control", CONTROL, "--height", "64", "--width", "64"),
        *("--output", str(folder / "of-others"), f"cache_dir={folder / 'cache'}"),
        "max_sequence_length=32",
    )
    assert process.returncode == 0, process.stderr
    assert "encoding the prompt" in process.stderr
    assert process.stdout.splitlines() == [str(folder / "of-others" / "prompt-0.png")]
    assert pixels(folder / "of-others" / "prompt-0.png").shape == (64, 64, 3)


def test_its_config_repeats_it_bit_for_bit_with_an_interruption(run, folder):
    _, first = run
    again = folder / "again"
    # Without images, which change nothing else.
    settings = (f"output_dir={again}", *WITHOUT_IMAGES)
    process = start("--config", str(first / "config.yaml"), *settings)
    log = again / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 143, stderr
    last = stderr.splitlines()[-1]
    (command,) = re.findall(r"To go on: `launcher (.*)`", last)
    assert not NOISE.search(stderr), stderr
    done = len(metrics(again))
    assert 0 < done < STEPS, "the signal came too late for this test"
    assert f"checkpoint-{done}" in last

    process = launch(*shlex.split(command))
    assert process.returncode == 0, process.stderr
    assert re.search(r"loaded (\d+) of \1 tensors", process.stderr)
    assert not NOISE.search(process.stderr), process.stderr
    assert_same_course(first, again)
    provenance = json.loads((again / "provenance.json").read_text())
    assert provenance["command_line"] == shlex.split(command)
    assert (again / "provenance-1.json").exists()


def test_a_checkpoint_goes_on_in_another_folder(run, folder):
    _, first = run
    branch = folder / "branch"
    process = launch(
        *("--resume", str(first / "checkpoint-4"), f"output_dir={branch}"),
        "validation_vae=process",  # changes no more than the last bit
    )
    assert process.returncode == 0, process.stderr
    assert not NOISE.search(process.stderr), process.stderr
    assert_same_course(first, branch)
    pictures = [path.relative_to(first) for path in (first / "validation").rglob("*.png")]
    assert len(pictures) == 2 + 1 + 2 * 4 + 1  # controls, target, two at each of four steps, grid
    for name in pictures:
        assert np.abs(pixels(first / name) - pixels(branch / name)).max() <= 1, name
    # A checkpoint can be used by itself.
    exported = load_file(first / "checkpoint-4" / WEIGHTS)
    assert exported.keys() == load_file(first / WEIGHTS).keys()


def test_a_run_that_is_complete_says_so(run):
    _, first = run
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    process = launch("--resume", str(first))
    assert process.returncode == 0, process.stderr
    assert f"is complete: {STEPS} steps" in process.stderr
    assert process.stdout == run[0].stdout
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_run_is_not_continued_with_another_architecture(run):
    _, first = run
    process = launch("--resume", str(first), "num_single_layers=0", "max_train_steps=9")
    assert process.returncode == 2
    assert "model.num_single_layers was 1 and is 0" in process.stderr
    assert "Traceback" not in process.stderr


def test_the_readmes_variant_trains_only_the_new_layers(run, folder, readme_variant):
    _, first = run
    output_dir = folder / "variant"
    process = launch(
        *("--config", str(first / "config.yaml"), "-p", str(readme_variant)),
        *(f"output_dir={output_dir}", "max_train_steps=3", *WITHOUT_IMAGES),
        "save_weight_dtype=bf16",
    )
    assert process.returncode == 0, process.stderr
    base = load_file(
        ROOT / "tests/data/one-layer-flux/transformer/diffusion_pytorch_model.safetensors"
    )
    for name, array in load_file(output_dir / WEIGHTS).items():
        assert str(array.dtype) == "bfloat16"
        if name.startswith(("controlnet_blocks.", "controlnet_single_blocks.")):
            assert np.any(array), name
        elif not name.startswith("controlnet_"):
            expected = base[name].astype(ml_dtypes.bfloat16).astype(np.float32)
            np.testing.assert_array_equal(array.astype(np.float32), expected, err_msg=name)
    provenance = json.loads((output_dir / "provenance.json").read_text())
    assert str(readme_variant) in [plugin["file"] for plugin in provenance["plugins"]]
