"""What keeps a run from being uploaded shows before it starts, and what it does at its end."""

import shutil

import pytest

from hooks.types import Config
from launcher.console import Console
from launcher.hub import push
from launcher.hub.errors import UploadError
from launcher.plugins import load
from launcher.sections import HubSection

ASKED = ["hub.push_to_hub=true", "hub.hub_model_id=club/edges"]


@pytest.fixture
def dry_run(fence, launch, hub, write):
    write("v.py", "from hooks import hookimpl\n\n\n@hookimpl\ndef on_train_end():\n    pass\n")
    return lambda *settings: launch(
        "--recipe", "fence", "-p", "v.py", "--dry-run", "output_dir=out", *settings
    )


def test_nothing_is_asked_without_push_to_hub(dry_run, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert dry_run("hub.hub_model_id=club/edges")[0] == 0
    assert hub.requests == []


def test_all_is_well(dry_run, hub):
    code, _, err = dry_run(*ASKED)
    assert (code, err) == (0, "")
    assert hub.requests == ["GET /api/whoami-v2"]
    assert hub.repositories == {}


@pytest.mark.parametrize("name", ["a b", "a/b/c", "é", "''", "x..y"])
def test_a_malformed_name(dry_run, hub, name):
    code, _, err = dry_run("hub.push_to_hub=true", f"hub.hub_model_id={name}")
    assert code == 2
    assert "hub.hub_model_id is" in err and "NAME or OWNER/NAME" in err
    assert hub.requests == []


def test_no_token(dry_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = dry_run(*ASKED)
    assert code == 2
    assert "hub.push_to_hub is true, and there is no token" in err


def test_a_wrong_token(dry_run, hub):
    hub.token = "hf_aNewOne12345678"
    code, _, err = dry_run(*ASKED)
    assert code == 2
    assert "the hub does not accept the token" in err


def test_a_token_that_may_only_read(dry_run, hub):
    hub.whoami["auth"]["accessToken"]["role"] = "read"
    code, _, err = dry_run(*ASKED)
    assert code == 2
    assert "the token of user may only read" in err


def test_an_organisation_that_one_is_no_member_of(dry_run, hub):
    code, _, err = dry_run("hub.push_to_hub=true", "hub.hub_model_id=others/edges")
    assert code == 2
    assert "user, whose token it is, is no member of others" in err
    assert "can write to user, club" in err
    hub.whoami["auth"]["accessToken"]["role"] = "fineGrained"  # of which less is known
    code, _, err = dry_run("hub.push_to_hub=true", "hub.hub_model_id=others/edges")
    assert code == 0
    assert "is no member of others" in err


def test_a_public_repository_for_a_private_model(dry_run, hub):
    hub.repositories["club/edges"] = {"private": False, "commits": []}
    code, _, err = dry_run(*ASKED, "hub.hub_private_repo=true")
    assert code == 2
    assert "club/edges exists and is public" in err
    hub.repositories["club/edges"]["private"] = True
    assert dry_run(*ASKED, "hub.hub_private_repo=true")[0] == 0


def test_no_network_is_no_reason_not_to_train(dry_run, hub, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = dry_run(*ASKED)
    assert code == 0
    assert err.count("\n") == 1
    assert "the upload at the end could not be checked" in err


def test_offline(dry_run, hub, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = dry_run(*ASKED)
    assert code == 2
    assert "HF_HUB_OFFLINE forbids every upload" in err
    assert hub.requests == []


def config_of(**hub):
    from launcher.sections import (
        OptimizerSection,
        PrecisionSection,
        TrainSection,
    )

    sections = dict(
        train=TrainSection("out"),
        precision=PrecisionSection(),
        optimizer=OptimizerSection(),
        hub=HubSection(**hub),
    )
    return Config(sections)


def test_the_end_of_a_run(fence, hub, make_run, capsys):
    run, plugins = make_run(), load("fence")
    push.after_run(plugins, config_of(), run, Console())
    assert hub.requests == []
    push.after_run(plugins, config_of(push_to_hub=True), run, Console())
    assert capsys.readouterr().out == f"{hub.url}/user/first\n"
    assert b"A model trained with MindSpore" in hub.files("user/first")["README.md"]


def test_whatever_fails_at_the_end_of_a_run_it_is_complete(fence, hub, make_run, monkeypatch):
    run, plugins = make_run(), load("fence")
    hub.failures["/api/repos/create"] = [500]
    with pytest.raises(UploadError, match=r"is complete, but was not uploaded.*error 500"):
        push.after_run(plugins, config_of(push_to_hub=True), run, Console())
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UploadError, match=r"is complete, but was not uploaded.*no token"):
        push.after_run(plugins, config_of(push_to_hub=True), run, Console())
    shutil.rmtree(run / "ema")
    with pytest.raises(UploadError, match=r"is complete, but was not uploaded.*ema"):
        push.after_run(plugins, config_of(push_to_hub=True), run, Console())
