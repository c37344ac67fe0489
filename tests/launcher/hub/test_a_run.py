"""A run that uploads at its end: of the third-party recipe, which is quick."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "examples" / "third_party_recipe"


@pytest.fixture
def launch_run(install, site, hub, tmp_path):
    """Start the launcher on two steps of the recipe: the finished process."""
    install(
        "tiny-denoiser-recipe", {"launcher.recipes": {"tiny_denoiser": "tiny_denoiser.recipe"}}, {}
    )
    path = os.pathsep.join(map(str, (site, RECIPE, ROOT)))

    def launch(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "launcher", *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "0"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return launch


def test_a_run_uploads_at_its_end(launch_run, hub, tmp_path):
    run = tmp_path / "run"
    new = ("--recipe", "tiny_denoiser", "--config", "quickstart", "max_train_steps=2")
    new += (f"output_dir={run}", "push_to_hub=true", "hub_model_id=club/denoiser")
    new += ("hub_private_repo=true",)
    refused = launch_run(*new, HF_TOKEN="hf_aWrongOne12345678")
    assert refused.returncode == 2, refused.stderr
    assert "the hub does not accept the token" in refused.stderr
    assert not run.exists()

    hub.requests.clear()
    hub.failures["/commit/main"] = [500]
    failed = launch_run(*new)
    assert failed.returncode == 3, failed.stderr
    again = f"`launcher push {run} --model-id club/denoiser --private` uploads it"
    assert f"the run in {run} is complete, but was not uploaded" in failed.stderr
    assert again in failed.stderr
    assert hub.requests[0] == "GET /api/whoami-v2"
    exported = json.loads((run / "exported.json").read_text())["files"]
    assert hub.files("club/denoiser") == {}
    noted = json.loads((run / "provenance.json").read_text())
    assert noted["working_directory"] == str(ROOT)
    assert noted["local_options"] == ["train.output_dir", "data.image_dir"]

    done = launch_run("--resume", run)  # nothing is left to do but that
    assert done.returncode == 0, done.stderr
    arrived = hub.files("club/denoiser")
    assert {name: arrived[name] for name in exported} == {
        name: (run / name).read_bytes() for name in exported
    }
    assert hub.repositories["club/denoiser"]["private"] is True
    card = arrived["README.md"].decode()
    head = yaml.safe_load(card.removeprefix("---\n").partition("\n---\n")[0])
    assert "library_name" not in head and "base_model" not in head
    assert "| steps | 2 |" in card
    assert str(tmp_path).encode() not in b"".join(arrived.values())
