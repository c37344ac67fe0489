"""What users get wrong, on the command line, and what they are told.

Every case must end with exit code 2 and one message that names the thing, the value and the way
out, before any weight is loaded, and leave nothing behind.
"""

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher import cli
from launcher.training.device import set_up as SET_UP  # the real one; see nothing_is_loaded

ROOT = Path(__file__).resolve().parent.parent
TINY_FLUX = ROOT / "tests" / "data" / "tiny-flux"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    """The device is taken for granted, and what comes after the checks fails."""
    from flux_common import loading
    from launcher import cpu, quiet
    from launcher.training import device

    def never(*arguments, **options):
        raise AssertionError("the mistake should have been found by now")

    monkeypatch.setattr(device, "set_up", lambda device, device_id, mode: "CPU")
    monkeypatch.setattr(quiet, "install", lambda verbose: None)
    monkeypatch.setattr(cpu, "install", never)
    monkeypatch.setattr(loading, "load_model", never)
    monkeypatch.setattr(loading, "load_tokenizers", never)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pipeline(tmp_path):
    """A copy of the tiny pipeline, to be spoilt."""
    return shutil.copytree(TINY_FLUX, tmp_path / "tiny-flux")


@pytest.fixture
def data(tmp_path):
    """A data set of three rows, to be spoilt."""
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(3):
        picture = Image.fromarray(np.full((64, 64, 3), 80 * n, np.uint8))
        picture.save(folder / f"{n}.png")
        picture.save(folder / f"edges-{n}.png")
    write_rows(folder, [row(n) for n in range(3)])
    return folder


def row(n, **changes):
    return {"image": f"{n}.png", "edges": f"edges-{n}.png", "text": f"caption {n}", **changes}


def write_rows(folder, rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def refused(here, pipeline, data, capsys):
    """refused(*arguments, **settings) -> the message for a run that is right but for these."""

    def run(*arguments, recipe="flux_controlnet", **settings):
        given = {
            "pretrained_model_name_or_path": pipeline,
            "num_double_layers": 1,
            "num_single_layers": 0,
            "dataset_name": data,
            "conditioning_image_column": "edges",
            "resolution": 64,
            "output_dir": "out",
            "mixed_precision": "no",
            **settings,
        }
        before = listing(here)
        texts = [f"{name}={value}" for name, value in given.items() if value is not None]
        code = cli.main(["--recipe", recipe, *arguments, *texts])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.startswith("launcher: error: ")
        assert "Traceback" not in err
        assert listing(here) == before
        message = err.removeprefix("launcher: error: ").strip()
        if "\n" not in message:
            assert message.endswith((".", "?")), message
        return message

    return run


def listing(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def has(message, *parts):
    for part in parts:
        assert str(part) in message, message


def test_without_a_mistake_the_run_gets_as_far_as_loading(refused):
    with pytest.raises(AssertionError, match="should have been found by now"):
        refused()


# Names


def test_unknown_recipe(refused):
    has(refused(recipe="flux_controlnt"), "`flux_controlnt`", "did you mean `flux_controlnet`?")


def test_unknown_plugin(refused):
    has(refused("-p", "my_varient.py"), "no variant file `my_varient.py`", "looked for")
    has(refused("-p", "nan_gard"), "no variant `nan_gard`")


def test_unknown_option_and_section(refused):
    has(refused(learning_rat=1), "no option learning_rat", "did you mean train.learning_rate?")
    has(refused(**{"trian.seed": 1}), "no section trian", "did you mean train")


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("@hookimpl\ndef build_los(config): return 1", ["`build_los`", "`build_loss`?"]),
        ("def build_loss(config): return 1", ["is not marked", "Write `@hookimpl`"]),
        ("@hookimpl\ndef build_loss(model): return 1", ["argument `model`", "`models`?"]),
        ("@hookimpl\ndef build_loss(models=None): return 1", ["a default", "always be None"]),
        ("@hookimpl\nasync def build_loss(models): return 1", ["is `async`"]),
        ("x = 1", ["implements no hook"]),
        ("def build_loss(:", ["is not valid Python"]),
        ("@hookimpl\ndef build_dataset(config):\n    pass", ["returned None", "forget `return"]),
    ],
)
def test_mistakes_in_a_variant(refused, tmp_path, body, parts):
    path = tmp_path / "v.py"
    path.write_text(f"from hooks import hookimpl\n\n{body}\n")
    has(refused("-p", str(path)), "v.py", *parts)


def test_two_variants_of_one_hook(refused, tmp_path):
    paths = [tmp_path / "a.py", tmp_path / "b.py"]
    for path in paths:
        path.write_text("from hooks import hookimpl\n@hookimpl\ndef build_loss(): return 1\n")
    message = refused("-p", str(paths[0]), "-p", str(paths[1]))
    has(message, "2 variants answer `build_loss`", "a.py:3", "b.py:3")


# Values


def test_several_mistakes_together(refused):
    message = refused(
        learning_rate="abc", seed=-1, mode="grahp", resolution=65, weighting_scheme="logitnormal"
    )
    has(message, "5 problems", "train.learning_rate is 'abc', but must be a number")
    has(message, "train.seed is '-1', but must be at least 0", "did you mean graph?")
    has(message, "did you mean logit_normal?", "multiples of 16, such as 64")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"resolution": "[64]"}, ["data.resolution is [64]", "[height, width]"]),
        ({"resolution": "[64, 100]"}, ["such as [64, 96]"]),
        ({"resolution": 0}, ["data.resolution is 0", "multiples of 16"]),
        ({"resolution": "512x768"}, ["'512x768'", "a whole number or a list"]),
        ({"max_sequence_length": 513}, ["'513', but must be at most 512"]),
        ({"max_train_samples": 0}, ["'0', but must be at least 1"]),
        ({"mixed_precision": "fp8"}, ["'fp8'", "no, fp16, bf16"]),
        ({"device": "cuda"}, ["'cuda'", "auto, Ascend, CPU"]),
        ({"num_train_epochs": 1.5}, ["'1.5'", "a whole number"]),
        ({"conditioning": "canny"}, ["data.conditioning_image_column", "leave out one"]),
        ({"dataset_name": None}, ["data.dataset_name", "neither is set"]),
        ({"num_double_layers": 3}, ["num_double_layers is 3", "only 2", "to 2 or less"]),
        ({"lr_warmup_steps": 5}, ["lr_warmup_steps is 5", "constant has no warm-up"]),
    ],
)
def test_values_out_of_range(refused, settings, parts):
    has(refused(**settings), *parts)


def test_a_device_that_is_absent(refused, monkeypatch):
    from launcher.training import device

    monkeypatch.setattr(device, "set_up", SET_UP)
    monkeypatch.setattr(device, "_npu_count", lambda: 0)
    message = refused(device="Ascend")
    has(message, "runtime.device is Ascend", "no Ascend NPU", "runtime.device=CPU")


# The pipeline


def truncate(path, by=100):
    os.truncate(path, path.stat().st_size - by)


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda p: shutil.rmtree(p / "tokenizer"), ["no subfolder tokenizer"]),
        (lambda p: (p / "vae/config.json").unlink(), ["vae/config.json is missing"]),
        (lambda p: (p / "vae" / WEIGHTS).unlink(), ["vae has no weights"]),
        (lambda p: truncate(p / "transformer" / WEIGHTS), ["transformer", "is truncated"]),
        (lambda p: (p / "vae" / WEIGHTS).write_bytes(b""), [WEIGHTS, "holds 0 bytes"]),
        (
            lambda p: (p / "vae" / WEIGHTS).write_text("<!DOCTYPE html><html></html>"),
            [WEIGHTS, "is not a safetensors file"],
        ),
        (lambda p: (p / "vae/config.json").write_text("{,"), ["vae/config.json is damaged"]),
        (
            lambda p: edit(p / "transformer/config.json", _class_name="SD3Transformer2DModel"),
            ["describes a SD3Transformer2DModel, not a FluxTransformer2DModel"],
        ),
        (
            lambda p: edit(p / "text_encoder_2/config.json", d_model=64),
            ["T5 embeddings of width 32", "text_encoder_2 makes 64"],
        ),
    ],
)
def test_a_pipeline_that_is_spoilt(refused, pipeline, spoil, parts):
    spoil(pipeline)
    has(refused(), pipeline, *parts)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_paths_that_are_no_pipeline(refused, pipeline):
    option = "model.pretrained_model_name_or_path"
    has(refused(pretrained_model_name_or_path="tiny"), option, "no folder 'tiny' in", os.getcwd())
    has(refused(pretrained_model_name_or_path=pipeline / "vae"), option, f"above: '{pipeline}'")
    has(refused(pretrained_model_name_or_path="org/name"), "'org/name'", "hub cannot be reached")


# The ControlNet


@pytest.fixture
def controlnet(tmp_path):
    """A ControlNet's folder that fits the tiny pipeline but for its weights."""
    folder = tmp_path / "controlnet"
    folder.mkdir()
    config = json.loads((TINY_FLUX / "transformer" / "config.json").read_text())
    config.update(_class_name="FluxControlNetModel", num_layers=1, num_single_layers=0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_attention_heads": 4}, "num_attention_heads is 4, the transformer's 2"),
        ({"in_channels": 128}, "in_channels is 128, the transformer's 64"),
        ({"guidance_embeds": False}, "guidance_embeds is False, the transformer's True"),
        ({"num_layers": 3}, "num_layers is 3, the transformer has only 2"),
    ],
)
def test_a_controlnet_that_does_not_fit(refused, controlnet, changes, part):
    edit(controlnet / "config.json", **changes)
    message = refused(controlnet_model_name_or_path=controlnet)
    has(message, controlnet, "does not fit the transformer", part)


def test_paths_that_are_no_controlnet(refused, pipeline, controlnet):
    def told(path):
        return refused(controlnet_model_name_or_path=path)

    has(told(pipeline), "is a whole pipeline, not a ControlNet")
    has(told(pipeline / "transformer"), "describes a FluxTransformer2DModel")
    has(told(controlnet.parent), "holds a ControlNet. Give", controlnet)
    has(told("org/net"), "'org/net'", "the hub cannot be reached")


# The data


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([], ["metadata.jsonl is empty"]),
        ([{"image": "0.png", "edge": "1.png", "text": "x"}], ["'edges'", "Did you mean 'edge'?"]),
        ([{"image": "0.png", "edges": "1.png"}], ["no column 'text'"]),
        ([row(0), row(7)], ["row 1 (line 2)", "7.png", "there is no such file"]),
        ([row(0), row(1, image="metadata.jsonl")], ["row 1", "it is not an image"]),
        ([row(0, text="")], ["row 0 (line 1)", "the caption is empty"]),
        ([row(0), row(1, text=None)], ["row 1", "nothing (null)"]),
        ([row(0, text=5)], ["row 0", "a number (5)"]),
        ([row(0, text=["a", ""])], ["row 0", "an empty caption in the list"]),
        ([row(0, text=[])], ["row 0", "an empty list"]),
    ],
)
def test_a_table_that_is_spoilt(refused, data, rows, parts):
    write_rows(data, rows)
    has(refused(), data / "metadata.jsonl", *parts)


def test_a_line_that_is_not_json(refused, data):
    with open(data / "metadata.jsonl", "a") as file:
        file.write('{"image": "0.png",\n')
    has(refused(), data / "metadata.jsonl", "line 4", "not JSON")


def test_images_that_are_spoilt_are_named_with_their_rows(refused, data):
    (data / "0.png").write_bytes(b"")
    truncate(data / "1.png", 60)
    Image.new("RGB", (128, 64)).save(data / "edges-2.png")
    message = refused()
    has(message, "row 0 (line 1)", "0.png", "it is empty (0 bytes)")
    has(message, "row 1 (line 2)", "1.png", "truncated")
    has(message, "row 2 (line 3)", "'image' is 64 x 64, 'edges' is 128 x 64")


def test_data_sets_that_are_not_there(refused, data):
    has(refused(dataset_name=data.with_name("date")), "no such folder", f"did you mean '{data}'?")
    has(refused(dataset_name="org/name"), "'org/name'", "the hub cannot be reached")
    missing = data / "metadat.jsonl"
    has(refused(dataset_name=None, jsonl_for_train=missing), missing, "No such file")


# The output folder


def test_an_output_folder_that_holds_another_run(refused, here):
    (here / "out").mkdir()
    (here / "out" / "metrics.jsonl").write_text("{}\n")
    has(refused(), "train.output_dir 'out' already holds a run", "choose another")


def test_an_output_folder_with_files_where_the_weights_would_go(refused, here):
    (here / "out" / "controlnet").mkdir(parents=True)
    (here / "out" / "controlnet" / "notes.txt").write_text("mine")
    has(refused(), "train.output_dir 'out' has folders in it (controlnet)", "choose another")


def test_an_output_folder_that_is_a_file(refused, here):
    (here / "file").touch()
    has(refused(output_dir="file"), "'file' is a file")
    has(refused(output_dir="file/out"), "lies under", "which is a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_is_not_writable(refused, here):
    (here / "locked").mkdir()
    (here / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
    has(refused(output_dir="locked/out"), "locked is not writable")
