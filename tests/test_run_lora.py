"""A whole LoRA run as a user starts it: prior preservation, CLIP trained too, in a process
of its own."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.test_run import NOISE, launch, metrics

STEPS = 40
PROMPT = "a photo of a circle"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    classes = folder / "classes"
    classes.mkdir()
    Image.new("RGB", (80, 64), "red").save(classes / "own.png")
    process = launch(
        *("--recipe", "flux_lora_dreambooth", "--config", "tests/data/tiny_lora.yaml"),
        *(f"output_dir={folder / 'run'}", f"max_train_steps={STEPS}"),
        *("max_train_samples=4", "train_text_encoder=true", "with_prior_preservation=true"),
        *(f"class_data_dir={classes}", f"class_prompt={PROMPT}", "num_class_images=3"),
        *("num_inference_steps=4", "train_batch_size=2"),
        f"cache_dir={folder / 'cache'}",  # its own: what it encodes is looked at
    )
    assert process.returncode == 0, process.stderr
    return process, folder / "run", classes


def test_it_says_what_it_does_and_nothing_else(run):
    process, output_dir, classes = run
    assert not NOISE.search(process.stderr), process.stderr
    for line in (f"making 2 class images in {classes}", "encoded 9 inputs in", "compiled the"):
        assert line in process.stderr
    assert re.search(r"^  trained +(frozen +)*0\.0\d M\b", process.stderr, re.M)
    assert process.stdout == f"{output_dir / 'pytorch_lora_weights.safetensors'}\n"


def test_class_images_were_made_beside_the_users_own(run):
    _, _, classes = run
    assert sorted(path.name for path in classes.iterdir()) == [
        "class-00000.png", "class-00001.png", "own.png",
    ]  # fmt: skip
    images = [Image.open(classes / f"class-0000{number}.png") for number in (0, 1)]
    assert [image.size for image in images] == [(64, 64)] * 2
    assert images[0].info["prompt"] == PROMPT
    assert np.ptp(np.asarray(images[0])) > 30
    assert not np.array_equal(*map(np.asarray, images))


def test_the_loss_falls(run):
    _, output_dir, _ = run
    losses = [line["loss"] for line in metrics(output_dir)]
    assert len(losses) == STEPS
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1


def test_every_adapter_has_moved(run):
    _, output_dir, _ = run
    weights = load_file(output_dir / "pytorch_lora_weights.safetensors")
    moved = {name for name, array in weights.items() if np.any(array)}
    assert moved == set(weights)
    assert {name.partition(".")[0] for name in weights} == {"transformer", "text_encoder"}
    assert all(array.dtype == np.float32 for array in weights.values())


def test_what_ran_is_on_record(run):
    _, output_dir, _ = run
    provenance = json.loads((output_dir / "provenance.json").read_text())
    assert provenance["recipe"] == "flux_lora_dreambooth"
