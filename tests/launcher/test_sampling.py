"""`launcher sample` up to the recipe, and what it writes."""

import argparse
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hooks.types import SampledImage
from launcher import sampling
from launcher.cli import main
from launcher.sampling import Output, Weights
from launcher.training import checkpoint
from launcher.training.errors import UserError


def finished(path, step):
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text("recipe: flux_controlnet\n")
    (path / "exported.json").write_text(json.dumps({"step": step, "files": []}))
    return path


def save_checkpoint(path, step):
    def add(work):
        (work / "config.yaml").write_text("recipe: flux_controlnet\n")

    path.mkdir(exist_ok=True)
    return checkpoint.write(path, step, {"x": np.zeros(1, np.float32)}, {}, add)


def find(path, ema=False):
    said = []
    found = sampling.find(str(path), ema, said.append)
    return found.folder, found.label, said


def test_a_finished_run_is_its_exported_weights(tmp_path):
    run = finished(tmp_path / "run", 20)
    save_checkpoint(run, 10)
    assert find(run) == (run, "step 20", [])


def test_of_a_run_that_goes_on_the_newest_checkpoint_counts(tmp_path):
    run = finished(tmp_path / "run", 20)
    newest = save_checkpoint(run, 30)
    assert find(run) == (newest, "step 30", [])
    (run / "exported.json").unlink()
    last = save_checkpoint(run, 40)
    (last / checkpoint.STATE).write_bytes(b"damaged")
    folder, label, (said,) = find(run)
    assert (folder, label) == (newest, "step 30") and "checkpoint-40" in said


def test_a_checkpoint_by_itself(tmp_path):
    finished(tmp_path / "run", 20)
    path = save_checkpoint(tmp_path / "run", 10)
    assert find(path) == (path, "step 10", [])
    found = sampling.find(str(path), False, print)
    assert found.config == path / "config.yaml"


def test_averaged_weights(tmp_path):
    run = finished(tmp_path / "run", 20)
    with pytest.raises(UserError, match="has no averaged weights"):
        find(run, ema=True)
    (run / "ema").mkdir()
    assert find(run, ema=True) == (run / "ema", "step 20, averaged", [])


def test_a_model_of_somebody_else(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert sampling.find(str(tmp_path), False, print).config is None
    with pytest.raises(UserError, match="is no run"):
        find(tmp_path, ema=True)


def test_what_is_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("")
    for name, words in (
        ("nothing", "does not exist"),
        ("file", "is a file"),
        ("", "holds neither a run"),
        ("begun", "neither a checkpoint yet nor exported weights"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UserError, match=words):
            find(tmp_path / name)


def test_a_name_of_the_hub_is_told_how_to_be_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`hf download acme/edges --local-dir FOLDER`"):
        sampling.find("acme/edges", False, print)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "edges.png"
    Image.new("RGB", (32, 32)).save(path)
    return str(path)


def asked(tmp_path, **changed):
    values = {
        "run": "runs/first", "prompt": ["a"], "control": [], "prompts": None, "scale": [1.0],
        "steps": 2, "guidance": 3.5, "control_mode": None, "seed": 1, "num_images": 1,
        "output": str(tmp_path / "out"), "overwrite": False,
    }  # fmt: skip
    return argparse.Namespace(**{**values, **changed})


def test_one_of_either_serves_all_of_the_other(tmp_path, picture):
    two = sampling.subjects_of(asked(tmp_path, prompt=["a", "b"], control=[picture]))
    assert two == [("a", picture), ("b", picture)]
    (tmp_path / "b.png").write_bytes((tmp_path / "edges.png").read_bytes())
    controls = [picture, str(tmp_path / "b.png")]
    assert [c for _, c in sampling.subjects_of(asked(tmp_path, control=controls))] == controls
    assert sampling.subjects_of(asked(tmp_path)) == [("a", None)]


def test_a_prompt_has_to_be_text(tmp_path):
    latin = b"caf\xe9".decode("utf-8", "surrogateescape")  # as a terminal in Latin-1 gives it
    with pytest.raises(UserError, match="has characters that are none; give it in UTF-8"):
        sampling.subjects_of(asked(tmp_path, prompt=["a", latin]))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "\\ud800"}')
    with pytest.raises(UserError, match="has characters that are none"):
        sampling.subjects_of(asked(tmp_path, prompt=[], prompts=str(tmp_path / "prompts.jsonl")))


def test_a_file_of_windows(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n')
    assert sampling.subjects_of(asked(tmp_path, prompt=[], prompts=str(file))) == [("a", None)]


def test_prompts_from_a_file(tmp_path, picture):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "ä", "control": "edges.png"}\n\n{"prompt": "b"}\n')
    options = asked(tmp_path, prompt=[], prompts=str(file))
    assert sampling.subjects_of(options) == [("ä", picture), ("b", None)]
    for text, words in (
        ('{"prompt": "a", "image": "x"}', "line 1"),
        ("", "has no prompts"),
        ('\n["a"]', "line 2"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            sampling.subjects_of(options)
    with pytest.raises(UserError, match="not both"):
        sampling.subjects_of(asked(tmp_path, prompts=str(file)))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--scale", "nan"], "--scale is nan"),
        (["--scale", "1e39"], "--scale is 1e+39"),
        (["--scale", "1", "1.0"], "the same number twice"),
        (["--steps", "0"], "--steps is 0; give 1 or more"),
        (["--height", "100", "--width", "64"], "--height is 100; the VAE"),
        (["--height", "64"], "give both of --height and --width"),
        (["--guidance", "-1"], "--guidance is -1.0"),
        (["--seed", "-1", "--num-images", "0"], "--num-images is 0"),
        (["--control", "none.png"], "the control image none.png cannot be used"),
        (["--prompt", "b", "--prompt", "c", *["--control", "x"] * 2], "3 prompts and 2 control"),
        (["--ema"], "has no averaged weights"),
        (["--recipe", "x"], "--recipe is for ControlNets that are no run's"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(tmp_path, capsys, arguments, words):
    run = finished(tmp_path / "run", 3)
    assert main(["sample", str(run), "--prompt", "a", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_foreign_model_needs_its_base(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["sample", str(tmp_path), "--prompt", "a"]) == 2
    assert "its base model is not known. Give it: --base" in capsys.readouterr().err


def test_a_recipe_that_makes_no_images_is_refused(tmp_path, capsys):
    run = finished(tmp_path / "run", 3)
    (run / "config.yaml").write_text(
        "recipe: flux_lora_dreambooth\nmodel: {pretrained_model_name_or_path: x}\n"
        "data: {instance_data_dir: x, instance_prompt: x}\ntrain: {output_dir: x}\n"
    )
    assert main(["sample", str(run), "--prompt", "a"]) == 2
    assert "flux_lora_dreambooth, which makes no images" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------
# What is written
# -------------------------------------------------------------------------------------------


def image(value, size=(32, 48)):
    rng = np.random.default_rng(value)
    return rng.integers(0, 256, (*size, 3), np.uint8)


def output(tmp_path, subjects=(("a red circle", "edges.png"),), **changed):
    options = asked(tmp_path, **changed)
    return Output(options, list(subjects), Weights(tmp_path, None, "step 5"))


def test_a_png_holds_the_image_and_how_it_was_made(tmp_path):
    single = output(tmp_path, scale=[0.7])
    single.require_free()
    made = SampledImage(0, 0, 0, image(1), control=image(2))
    (file,) = single.write([made])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prompt-0.png"]
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image(1))
        assert picture.text["prompt"] == "a red circle"
        assert json.loads(picture.text["parameters"]) == {
            "prompt": "a red circle", "control": "edges.png", "scale": 0.7, "steps": 2,
            "guidance": 3.5, "seed": 1, "number": 0, "height": 32, "width": 48,
            "weights": "runs/first (step 5)",
        }  # fmt: skip


def test_several_have_names_of_their_own_and_a_grid(tmp_path):
    several = output(tmp_path, scale=[0.5, 1.0], num_images=2)
    several.require_free()
    images = [
        SampledImage(0, s, n, image(2 * s + n), control=image(9)) for s in (0, 1) for n in (0, 1)
    ]
    files = list(several.write(images))
    assert [file.name for file in files] == [
        *("prompt-0-scale-0.5.png", "prompt-0-scale-0.5-1.png"),
        *("prompt-0-scale-1.png", "prompt-0-scale-1-1.png"),
    ]
    assert several.write_grid().name == "grid.png"
    assert (tmp_path / "out" / "control-0.png").is_file()
    # Control and two scales; two rows of images of 32 x 48, which are doubled.
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png"))
    assert grid.shape[1] == 8 + 3 * (128 + 8)
    shown = [
        [grid[top : top + 64 : 2, left : left + 96 : 2] for left in (8, 144, 280)]
        for top in (52, 52 + 94)
    ]
    expected = [[image(9), image(0), image(2)], [image(9), image(1), image(3)]]
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("name", ["grid.png", "control-0.png", "prompt-0-1.png"])
def test_none_of_the_files_is_replaced(tmp_path, name):
    tmp_path_made(tmp_path)
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match=f"has {name} already"):
        output(tmp_path, num_images=2).require_free()


@pytest.mark.parametrize("what", ["image", "grid"])
def test_a_full_disk(tmp_path, small_disk, what):
    disk = small_disk(64 * 1024)
    several = output(tmp_path, num_images=2, output=str(disk / "out"))
    name = "prompt" if what == "image" else "grid"
    images = [SampledImage(0, 0, n, image(n)) for n in (0, 1)]
    with pytest.raises(UserError, match=f"{name}.*png cannot be written: No space left") as caught:
        if what == "image":
            (disk / "filler").write_bytes(b"x" * (52 * 1024))
        list(several.write(images))
        (disk / "filler").write_bytes(b"x" * (44 * 1024))
        several.write_grid()
    assert str(disk / "out") in str(caught.value)


def test_a_folder_is_made_with_its_first_image(tmp_path):
    single = output(tmp_path, output=str(tmp_path / "a" / "b"))
    single.require_free()
    assert not (tmp_path / "a").exists()
    list(single.write([SampledImage(0, 0, 0, image(1))]))
    assert (tmp_path / "a" / "b" / "prompt-0.png").is_file()


def test_nothing_is_replaced_without_being_asked(tmp_path):
    list(output(tmp_path_made(tmp_path)).write([SampledImage(0, 0, 0, image(1))]))
    with pytest.raises(UserError, match=r"has prompt-0\.png already"):
        output(tmp_path).require_free()
    output(tmp_path, overwrite=True).require_free()
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="is a file"):
        output(tmp_path, output=str(tmp_path / "taken")).require_free()
    with pytest.raises(UserError, match="File name too long; choose another --output"):
        output(tmp_path, output="x" * 300).require_free()


def tmp_path_made(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def answer(monkeypatch):
    """answer(function): a recipe of one hook, in the place of the loaded ones"""

    def install(sample):
        plugins = SimpleNamespace(
            hook=SimpleNamespace(sample=sample), leaves_to_launcher=lambda name: False
        )
        resolved = SimpleNamespace(config=None)
        monkeypatch.setattr(sampling, "_configure", lambda *_: (plugins, resolved))
        monkeypatch.setattr("launcher.pipeline.choose_device", lambda config: "CPU")

    return install


def test_a_checkpoint_that_is_removed_meanwhile(tmp_path, answer, capsys):
    def sample(config, request):
        shutil.rmtree(request.weights)
        yield from ()
        (request.weights / "model.safetensors").read_bytes()

    answer(sample)
    path = save_checkpoint(tmp_path / "run", 10)
    out = str(tmp_path / "out")
    assert main(["sample", str(path), "--prompt", "a", "--output", out]) == 2
    assert "checkpoint-10 was removed while it was read" in capsys.readouterr().err


def test_the_recipe_is_asked_for_what_was_typed(tmp_path, answer, picture, capsys):
    seen = []

    def sample(config, request):
        seen.append(request)
        yield SampledImage(0, 0, 0, image(1), control=image(2))

    answer(sample)
    run = finished(tmp_path / "run", 3)
    out = tmp_path / "out"
    arguments = ["--prompt", "a", "--control", picture, "--seed", "9", "--output", str(out)]
    assert main(["sample", str(run), *arguments, "--height", "32", "--width", "48"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "prompt-0.png")]
    (request,) = seen
    assert request.weights == run and request.subjects == [("a", picture)]
    assert (request.size, request.seed, request.scales) == ((32, 48), 9, [1.0])
