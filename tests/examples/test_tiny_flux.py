"""Making the quickstart's base model: what is done is gone on with, and only that."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "tiny_flux"))

import make


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
