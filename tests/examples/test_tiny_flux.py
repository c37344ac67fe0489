"""Making the quickstart's base model: what is done is gone on with, and only that. The one that is
shipped is what is made."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "tiny_flux"))

import make

SHIPPED = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "tiny-flux-shapes"


def test_what_was_made_with_the_same_settings_is_gone_on_with(tmp_path):
    make.require_same(tmp_path)
    (tmp_path / "data").mkdir()
    make.require_same(tmp_path)
    assert json.loads((tmp_path / "made_with.json").read_text())["seed"] == make.DATA_SEED


def test_what_was_made_with_others_is_not(tmp_path, monkeypatch):
    make.require_same(tmp_path)
    monkeypatch.setattr(make, "SAMPLES", 8)
    with pytest.raises(SystemExit, match=r"made with other settings .*Give another folder"):
        make.require_same(tmp_path)


def test_nor_what_tells_nothing_of_itself(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit, match="made with other settings"):
        make.require_same(tmp_path)


@pytest.mark.parametrize("files", [["vae"], ["vae", "decoder"], ["base"], ["base", "base_further"]])
def test_the_shipped_model_was_trained_with_these_settings(files):
    name = files[-1]
    used = yaml.safe_load((SHIPPED / "provenance" / f"{name}.yaml").read_text())
    settings = {}
    for file in files:
        content = yaml.safe_load((Path(make.__file__).parent / f"{file}.yaml").read_text())
        for section, options in content.items():
            settings[section] = settings.get(section, {}) | options
    train = settings["train"]
    train["learning_rate"] = float(train["learning_rate"])  # to PyYAML, 1e-3 is a text
    for section, options in settings.items():
        assert used[section] | options == used[section]
    told = json.loads((SHIPPED / "provenance" / "provenance.json").read_text())
    assert told["data"] == {"samples": make.SAMPLES, "seed": make.DATA_SEED, "size": 64}
    assert told["runs"][name]["steps"] == train["max_train_steps"]


def test_the_shipped_model_is_small_and_tells_no_paths():
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6
    for file in files:
        if file.parent.name == "provenance":
            assert not re.search(r"(^|[\s\"'=])(/|\.\./)\w", file.read_text()), file
