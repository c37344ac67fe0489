"""Which options of a run name something on its machine."""

from pathlib import Path

import pytest

from flux_controlnet_plugin.config import SECTIONS
from hooks.types import Config
from launcher.hub.paths import local_options, settled
from launcher.sections import TrainSection


def config(output_dir="out", **data):
    sections = {name: section() for name, section in SECTIONS.items() if name != "model"}
    base = data.pop("base", "org/flux")
    images = data.pop("images", None)
    sections["model"] = SECTIONS["model"](base)
    sections["data"] = SECTIONS["data"](**data)
    sections["images"] = SECTIONS["images"](validation_image=images)
    return Config(sections | {"train": TrainSection(output_dir)})


@pytest.mark.parametrize(
    "name, is_local",
    [
        ("org/flux", False),
        ("acme/flux", True),  # which is there
        ("flux", True),
        ("./flux", True),
        ("../flux", True),
        ("~/flux", True),
        ("/data/flux", True),
        ("a/b/c", True),
    ],
)
def test_what_is_local(tmp_path, monkeypatch, name, is_local):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "flux").mkdir(parents=True)
    found = local_options(config(base=name, dataset_name=name))
    here = ["model.pretrained_model_name_or_path", "data.dataset_name"]
    assert sorted(found) == sorted([*(here if is_local else []), "train.output_dir"])


def test_a_file_is_never_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = local_options(config(jsonl_for_train="acme/all.jsonl", images=["acme/x.png"]))
    assert {"data.jsonl_for_train", "images.validation_image"} <= set(found)


def test_what_is_local_becomes_absolute(monkeypatch):
    monkeypatch.setenv("HOME", "/users/bob")
    made = config(dataset_name="org/photos", images=["a.png", "~/b.png"], cache_dir="/c")
    noted = ["images.validation_image", "train.output_dir", "data.cache_dir"]
    seen = settled(made, noted, Path("/started"))
    assert seen.images.validation_image == ["/started/a.png", "/users/bob/b.png"]
    assert (seen.train.output_dir, seen.data.cache_dir) == ("/started/out", "/c")
    assert (seen.data.dataset_name, seen.model.pretrained_model_name_or_path) == (
        "org/photos",
        "org/flux",
    )
    unknown = settled(made, None, Path("/started"))
    assert unknown.data.dataset_name == "/started/org/photos"
    assert unknown.data.jsonl_for_train is None
