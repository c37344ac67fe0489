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


@pytest.mark.parametrize(
    "where, name, value",
    [(make, "SAMPLES", 8), (make.digests, "of_file", lambda path: path.name.encode())],
    ids=["settings", "files"],
)
def test_what_was_made_with_others_is_not(where, name, value, tmp_path, monkeypatch):
    make.require_same(tmp_path)
    monkeypatch.setattr(where, name, value)
    with pytest.raises(SystemExit, match=r"made with other settings .*Give another folder"):
        make.require_same(tmp_path)


def test_nor_what_tells_nothing_of_itself(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit, match="made with other settings"):
        make.require_same(tmp_path)


def test_only_a_pipeline_is_replaced(tmp_path):
    work, target = tmp_path / "work", tmp_path / "pipeline"
    make.require_replaceable(target, work)
    target.mkdir()
    make.require_replaceable(target, work)
    (target / "model_index.json").write_text("{}")
    make.require_replaceable(target, work)
    (target / "model_index.json").rename(target / "thesis.pdf")
    with pytest.raises(SystemExit, match="pipeline holds something else than a pipeline"):
        make.require_replaceable(target, work)
    with pytest.raises(SystemExit, match=r"thesis\.pdf holds something else"):
        make.require_replaceable(target / "thesis.pdf", work)
    for folder in (work, work / "data", tmp_path, make.ROOT, make.ROOT.parent):
        with pytest.raises(SystemExit, match="cannot be replaced by the pipeline; give a folder"):
            make.require_replaceable(folder, work)


def test_what_is_told_of_a_run(tmp_path):
    run = {"seed": 1, "device": "CPU", "host": "mine"}
    run["packages"] = {"mindspore": "1", "mindone": "2", "numpy": "3", "pluggy": "4"}
    for name in ("provenance.json", "provenance-2.json"):
        (tmp_path / name).write_text(json.dumps(run))
    lines = [{"step": n, "loss": n / 100, "step_seconds": 3.0} for n in range(1, 101)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert make.summary(tmp_path) == {
        "seed": 1,
        "device": "CPU",
        "steps": 100,
        "loss_of_last_tenth": 0.955,
        "minutes_in_steps": 5.0,
        "interruptions": 1,
        "packages": {"mindspore": "1", "mindone": "2", "numpy": "3"},
    }


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
        if file.suffix in (".json", ".yaml"):
            assert not re.search(r"(^|[\s\"'=])(/|\.\./)\w", file.read_text()), file
