"""What of a path may leave the machine."""

from pathlib import Path

import pytest

from launcher.training.private import hub_name, public_name, public_value


@pytest.mark.parametrize(
    "text, expected",
    [
        ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-dev"),
        ("/data/huggingface/hub/models--org--name/snapshots/0a1b", "org/name"),
        ("/data/acme/flux", "flux"),
        ("~/flux/", "flux"),
        ("./flux", "flux"),
        ("a/b/c", "c"),
        ("flux", "flux"),
        ("/", "/"),
    ],
)
def test_a_path_is_its_last_part(text, expected):
    assert public_name(text) == expected


def test_the_working_directory_has_no_influence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "flux").mkdir(parents=True)
    assert hub_name("acme/flux") == "acme/flux"
    assert hub_name("/data/acme/flux") is None


def test_values_of_options():
    assert public_value(["/a/b", "../x/y", 3, None, True]) == ["b", "y", 3, None, True]
    assert public_value("cat/dog/bird") == "cat/dog/bird"
    assert public_value("a photo of a cat / a dog / a bird") == "a photo of a cat / a dog / a bird"
    assert public_value("to_k,to_q") == "to_k,to_q"
    assert public_value(0.5) == 0.5


def test_the_home_folder_is_nowhere(monkeypatch):
    monkeypatch.setenv("HOME", "/users/bob")
    assert Path.home() == Path("/users/bob")
    assert public_value("from /users/bob/x") == "from ~/x"
