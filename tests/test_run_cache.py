"""Encoding as a user sees it: `launcher precompute` and runs, each in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.test_run import ROOT, TINY, launch

SAMPLES = 4
SETTINGS = (
    *("--recipe", "flux_controlnet", "--config", TINY),
    *(f"max_train_samples={SAMPLES}", "max_sequence_length=16", "max_train_steps=2"),
    "lr_warmup_steps=0",
)


def precompute(cache, *settings, output_dir="not_made"):
    return launch(
        "precompute", *SETTINGS, f"cache_dir={cache}", f"output_dir={output_dir}", *settings
    )


def contents(cache):
    """Every file of a cache, by its path in there."""
    folder = Path(cache) / "encodings"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with all that the data set needs, the empty caption included."""
    folder = tmp_path_factory.mktemp("full")
    process = precompute(folder)
    assert process.returncode == 0, process.stderr
    assert f"encoded {3 * SAMPLES + 1} inputs in" in process.stderr
    assert process.stdout == ""
    return folder


@pytest.fixture
def copy(cache, tmp_path):
    return Path(shutil.copytree(cache, tmp_path / "copy"))


def test_nothing_is_encoded_again_whatever_else_changes(cache, tmp_path):
    before = contents(cache)
    settings = ("learning_rate=1e-5", "seed=7", "train_batch_size=2", "max_grad_norm=null")
    process = precompute(cache, *settings, "num_single_layers=1", output_dir=tmp_path / "x")
    assert process.returncode == 0, process.stderr
    assert f"all {3 * SAMPLES + 1} encodings are in {cache / 'encodings'}" in process.stderr
    assert "loading the encoders" not in process.stderr
    assert contents(cache) == before
    assert not (tmp_path / "x").exists()


def test_other_weights_make_their_own_encodings(copy, one_layer_flux, tmp_path):
    pipeline = tmp_path / "other"
    shutil.copytree(one_layer_flux, pipeline)
    path = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["encoder.conv_out.bias"] += np.float32(0.5)
    save_file(weights, path, metadata={"format": "pt"})
    before = contents(copy)
    process = precompute(copy, f"pretrained_model_name_or_path={pipeline}")
    assert process.returncode == 0, process.stderr
    assert f"encoded {2 * SAMPLES} inputs in" in process.stderr and "texts" not in process.stderr
    after = contents(copy)
    assert before.items() < after.items() and len(after) == len(before) + 1


def test_an_encoding_that_is_not_finite_stops_it_and_is_not_kept(one_layer_flux, tmp_path):
    pipeline = tmp_path / "other"
    shutil.copytree(one_layer_flux, pipeline)
    path = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["encoder.conv_out.bias"][:] = np.inf
    save_file(weights, path, metadata={"format": "pt"})
    process = precompute(tmp_path / "cache", f"pretrained_model_name_or_path={pipeline}")
    assert process.returncode == 2
    assert (
        "launcher: error: vae made numbers that are not finite of the target image of row 0."
        in process.stderr
    )
    assert "Traceback" not in process.stderr
    assert not any(name.startswith("image") for name in contents(tmp_path / "cache"))


def test_killed_while_it_encodes_it_is_reported_and_the_next_run_goes_on(cache, tmp_path):
    """The training process's child is killed, at another moment each time."""
    other = tmp_path / "cache"
    arguments = [*SETTINGS, f"cache_dir={other}", f"output_dir={tmp_path / 'run'}"]
    for moment in ("encoding the first texts", "encoding the first images"):
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        for line in process.stderr:
            said += line
            if moment in line:
                (child,) = children(process.pid)
                os.kill(child, signal.SIGKILL)
                moment = "\0"
        assert process.wait(60) == 2
        assert "the process that encodes the data set was killed by SIGKILL while it was at" in said
        assert not (tmp_path / "run").exists()
    process = precompute(other)
    assert process.returncode == 0, process.stderr
    assert contents(other) == contents(cache)


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, rest = stat.read_text().rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if rest.split()[1] == str(pid):
            command = Path(stat.parent, "cmdline").read_bytes()
            if b"launcher.cli" in command:
                found.append(int(stat.parent.name))
    return found


def test_a_flipped_byte_is_found_when_it_is_read_and_made_anew(copy, cache, tmp_path):
    (path,) = (copy / "encodings" / "image").rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    verify = launch("cache", "verify", str(copy))
    assert verify.returncode == 2 and "damaged" in verify.stderr
    process = launch(*SETTINGS, f"cache_dir={copy}", f"output_dir={tmp_path / 'run'}")
    assert process.returncode == 0, process.stderr
    assert "it is made anew" in process.stderr and "encoded 1 input in" in process.stderr
    made, expected = entries(copy), entries(cache)
    assert made.keys() == expected.keys()
    # Its place in the batch is another now, on which the last bits depend with some processors.
    for key, arrays in expected.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(made[key][name], array, rtol=1e-4, atol=1e-5, err_msg=name)
    assert launch("cache", "verify", str(copy)).returncode == 0


def entries(cache):
    """The arrays of every entry by key, however they are spread over files."""
    found = {}
    for path in (Path(cache) / "encodings").rglob("*.safetensors"):
        arrays = load_file(path)
        for row, key in enumerate(arrays.pop("keys")):
            found[key.tobytes()] = {
                name: array[row]
                for name, array in arrays.items()
                if not name.startswith("checksum.")
            }
    return found


def test_images_of_several_shapes_are_trained_at_the_nearest_size(tmp_path):
    from PIL import Image

    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    with (data / "metadata.jsonl").open("w") as file:
        for number in range(6):
            size = (100, 50) if number % 2 else (70, 70)  # width, height
            for kind in ("image", "control"):
                pixels = rng.integers(0, 255, (*size[::-1], 3), np.uint8)
                Image.fromarray(pixels).save(data / f"{kind}{number}.png")
            row = {"image": f"image{number}.png", "control": f"control{number}.png", "text": "x"}
            file.write(json.dumps(row) + "\n")
    process = launch(
        *("--recipe", "flux_controlnet", "--config", TINY, f"dataset_name={data}"),
        *("conditioning_image_column=control", "resolution=null", "buckets=[[64,64],[32,64]]"),
        *("max_sequence_length=16", "train_batch_size=2", "max_train_steps=6"),
        *("lr_warmup_steps=0", f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"),
    )
    assert process.returncode == 0, process.stderr
    assert "images of 2 sizes: at most 2 graphs are compiled" in process.stderr
    for number in (1, 2):
        said = f"compiled training step {number} of at most 2 in"
        assert process.stderr.count(said) == 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6 and all(0.1 < json.loads(line)["loss"] < 5 for line in lines)
    shapes = {
        load_file(path)["moments"].shape[1:]
        for path in (tmp_path / "cache" / "encodings" / "image").rglob("*.safetensors")
    }
    assert shapes == {(32, 8, 8), (32, 4, 8)}
