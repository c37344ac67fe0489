"""Class images: counted, kept, made where they are missing. Making them is tested in a whole run
(tests/test_run_lora.py); here something else draws."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flux_common import class_images, sampling


@pytest.fixture
def made(monkeypatch, tmp_path):
    """make(number of images): what was said, and the noise that was drawn"""
    seen = {}

    def sample(pipeline, prompt, noise, *, size, batch_size, **options):
        seen.update(noise=list(noise), prompt=prompt, batch_size=batch_size)
        for number in range(len(noise)):
            yield np.full((*size, 3), number, np.uint8)

    monkeypatch.setattr(sampling, "sample", sample)
    folder = tmp_path / "classes"

    def make(count, prompt="a dog", seed=0):
        seen["said"] = []
        pipeline = SimpleNamespace(
            transformer=SimpleNamespace(config=SimpleNamespace(in_channels=4))
        )
        class_images.make(
            class_images.missing_files(str(folder), count),
            lambda: pipeline,
            class_prompt=prompt,
            seed=seed,
            size=(32, 48),
            sample_batch_size=2,
            num_inference_steps=1,
            max_sequence_length=1,
            say=seen["said"].append,
        )
        return dict(seen)

    make.folder = folder
    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_as_many_as_asked_for(made):
    seen = made(3)
    assert names(made.folder) == ["class-00000.png", "class-00001.png", "class-00002.png"]
    assert seen["said"][0] == f"making 3 class images in {made.folder}: a dog"
    assert seen["said"][-1] == "class image 3 of 3"
    assert [noise.shape for noise in seen["noise"]] == [(6, 4)] * 3
    assert Image.open(made.folder / "class-00000.png").size == (48, 32)


def test_those_that_are_there_are_kept_and_the_rest_is_made(made):
    first = list(made(3)["noise"])
    before = (made.folder / "class-00000.png").stat().st_mtime_ns
    seen = made(5)
    assert len(seen["noise"]) == 2
    assert (made.folder / "class-00000.png").stat().st_mtime_ns == before
    assert len(names(made.folder)) == 5
    # What is added is what five at once would have been.
    for path in made.folder.iterdir():
        path.unlink()
    at_once = made(5)["noise"]
    for one, other in zip(at_once, [*first, *seen["noise"]], strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_done_if_enough_are_there(made):
    made(3)
    assert made(2)["said"] == []
    assert len(names(made.folder)) == 3


def test_ones_own_images_count(made):
    made.folder.mkdir()
    for name in ("class-00000.png", "zebra.jpg"):
        Image.new("RGB", (8, 8)).save(made.folder / name)
    made(3)
    assert names(made.folder) == ["class-00000.png", "class-00001.png", "zebra.jpg"]


def test_the_first_are_used_if_there_are_more(made):
    made(5)
    _, files, present = class_images.planned_files(str(made.folder), 2)
    assert files == ["class-00000.png", "class-00001.png"] and present == [0, 1]


def test_images_made_for_another_prompt_are_refused(made):
    made(2)
    given = {"class_data_dir": str(made.folder), "num_class_images": 2}
    assert class_images.problems(**given, class_prompt="a dog") == []
    (problem,) = class_images.problems(**given, class_prompt="a cat")
    assert "made for the prompt 'a dog'" in problem and "'a cat'" in problem


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "x").write_text("")
    (problem,) = class_images.problems(str(tmp_path / "x"), "a dog", 3)
    assert "which is a file" in problem
