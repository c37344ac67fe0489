"""`launcher push`, against a stand-in for the hub."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from launcher.logs import Logs
from launcher.training import checkpoint

VARIANTS = Path(__file__).parents[3] / "examples" / "variants"
LAUNCHER = [sys.executable, "-m", "launcher"]


def metadata(card):
    head = card.removeprefix("---\n").partition("\n---\n")[0]
    return yaml.safe_load(head)


def test_what_arrives_is_what_was_exported(launch, hub, make_run, files_of):
    run = make_run()
    before = files_of(run)
    code, out, err = launch("push", run)
    assert (code, out) == (0, f"{hub.url}/user/first\n"), err
    arrived = hub.files("user/first")
    exported = json.loads((run / "exported.json").read_text())["files"]
    for name in [*exported, "validation/grid.png", "precision.json"]:
        assert arrived[name] == before[name], name
    assert arrived["README.md"] == (run / "README.md").read_bytes()
    assert len(hub.repositories["user/first"]["commits"]) == 1
    assert set(arrived) == {
        *exported, "validation/grid.png", "precision.json", "README.md", "config.yaml",
        "provenance.json",
    }  # fmt: skip
    after = files_of(run)
    assert after.pop("README.md")
    assert after == before


def test_what_is_private_stays_here(launch, hub, make_run, tmp_path):
    run = make_run()
    assert launch("push", run)[0] == 0
    for name, content in hub.files("user/first").items():
        for secret in (str(tmp_path), "acme", "secret-cache", hub.token, "private.yaml"):
            assert secret.encode() not in content, (name, secret)
    config = yaml.safe_load(hub.files("user/first")["config.yaml"])
    assert config["data"]["dataset_name"] == "photos"
    assert config["data"]["cache_dir"] is None
    assert config["train"]["output_dir"] == "first"
    assert config["model"]["pretrained_model_name_or_path"] == "black-forest-labs/FLUX.1-dev"
    provenance = json.loads(hub.files("user/first")["provenance.json"])
    assert provenance["packages"] == {"mindspore": "2.10.0", "mindone": "0.5.0"}
    assert provenance["platform"] == {"system": "Linux"}
    assert provenance["plugins"] == [{"name": "v", "file": "v.py", "sha256": "ab"}]


def test_the_card_tells_of_the_run(launch, hub, make_run):
    assert launch("push", make_run(), "--model-id", "club/edges")[0] == 0
    card = hub.files("club/edges")["README.md"].decode()
    assert metadata(card) == {
        "library_name": "diffusers",
        "base_model_relation": "adapter",
        "license": "other",
        "license_name": "flux-1-dev-non-commercial-license",
        "license_link": "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        "pipeline_tag": "text-to-image",
        "inference": True,
        "base_model": "black-forest-labs/FLUX.1-dev",
        "tags": [
            "flux", "flux-diffusers", "text-to-image", "diffusers", "diffusers-training",
            "mindspore", "controlnet",
        ],
    }  # fmt: skip
    for line in (
        "| steps | 40 |",
        "| batch | 6 samples (2 a micro-batch, 3 of them) |",
        "| learning rate | 1e-05, `constant` |",
        "| optimizer | `adamw` |",
        "| precision of `controlnet` | computed in bfloat16, attention in float32, trained "
        "parameters kept in float32 |",
        "| loss of the last step | 0.025 |",
        "## Validation after step 40",
        "| loss | 0.125 |",
        "| loss without control | 0.5 |",
        "| data set | `photos` |",
        "(validation/grid.png)",
        "| mindspore | 2.10.0 |",
    ):
        assert line in card, line
    code = card.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert "'club/edges', subfolder='controlnet'" in code
    assert "height=64,\n    width=96,\n    guidance" in code
    assert "# The averaged weights: subfolder='ema/controlnet'\n" in code
    assert "precision of `transformer`" not in card  # it is not trained
    assert "launcher sample edges/controlnet --base black-forest-labs/FLUX.1-dev" in card


def note(run, **entries):
    """Put entries into the run's provenance."""
    path = run / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


PATHS = """
recipe: flux_controlnet
model:
  pretrained_model_name_or_path: weights/acme-flux
  controlnet_model_name_or_path: acme/net
data:
  jsonl_for_train: acme/photos.jsonl
  conditioning: canny
images:
  validation_prompt: [/a/cat, acme style]
  validation_image: [acme/a.png, ./acme/b.png]
  validation_samples: 2
hub:
  hub_private_repo: true
train:
  output_dir: acme/first
tracking:
  report_to: wandb
  tracker_project_name: acme
"""


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_relative_paths_stay_here(launch, hub, make_run, tmp_path, monkeypatch, noted, there):
    """Whether the folders are still there, and from which directory the push runs."""
    run = make_run(config=PATHS)
    local = ["model.controlnet_model_name_or_path", "data.jsonl_for_train", "train.output_dir"]
    local += ["images.validation_image"]
    note(run, working_directory=str(run.parents[1] / "started"))
    if noted:
        note(run, local_options=local)
    else:
        path = run / "provenance.json"
        path.write_text(
            json.dumps({k: v for k, v in json.loads(path.read_text()).items() if "local" not in k})
        )
    if there:
        (run.parents[1] / "started" / "acme" / "net").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert launch("push", run)[0] == 0
    arrived = hub.files("user/first")
    card = arrived["README.md"].decode()
    config = yaml.safe_load(arrived["config.yaml"])
    assert "tracking" not in config
    assert config["data"]["jsonl_for_train"] == "photos.jsonl"
    assert config["images"]["validation_image"] == ["a.png", "b.png"]
    assert config["images"]["validation_prompt"] == ["/a/cat", "acme style"]
    assert config["model"]["controlnet_model_name_or_path"] == "net"
    assert "went on from the ControlNet `net`" in card
    base = config["model"]["pretrained_model_name_or_path"]
    assert (base, metadata(card).get("base_model")) == (
        ("weights/acme-flux",) * 2 if noted else ("acme-flux", None)
    )
    del config["images"], config["model"]["pretrained_model_name_or_path"]
    assert "acme" not in str(config)
    assert b"acme" not in arrived["provenance.json"]


def test_the_licence_of_a_base_model_beside_the_run(launch, hub, make_run, tmp_path):
    base = tmp_path / "started" / "models" / "flux"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    run = make_run(config=PATHS.replace("weights/acme-flux", "models/flux"))
    note(
        run,
        working_directory=str(tmp_path / "started"),
        local_options=["model.pretrained_model_name_or_path"],
    )
    assert launch("push", run)[0] == 0
    card = hub.files("user/first")["README.md"].decode()
    assert metadata(card)["license"] == "mit"
    assert "base_model" not in metadata(card) and "base_model_relation" not in metadata(card)


OPTIMIZER = """
from hooks import hookimpl


@hookimpl
def build_optimizer(config, parameters):
    return None
"""
EXPORT = """
from hooks import hookimpl


@hookimpl
def export_weights(config, models, directory, values):
    return []
"""


def test_a_run_with_variants(launch, hub, make_run):
    run = make_run()
    (run.parent / "lion.py").write_text(OPTIMIZER)
    (run.parent / "export.py").write_text(EXPORT)
    with open(run / "config.yaml", "a") as file:
        file.write(f"plugins: [{run.parent / 'lion.py'}, ../export.py]\n")
    assert launch("push", run)[0] == 0
    card = hub.files("user/first")["README.md"].decode()
    assert "| optimizer | that of `lion.py` |" in card and "adamw" not in card
    assert "| variant | `lion.py` (`build_optimizer`) |" in card
    assert "| variant | `export.py` (`export_weights`) |" in card
    assert "The variant `export.py` answers `export_weights`, and not `describe_model`" in card
    assert "The variant `lion.py`" not in card and "acme" not in card
    config = yaml.safe_load(hub.files("user/first")["config.yaml"])
    assert config["plugins"] == ["lion.py", "export.py"]


def test_a_fine_tuned_transformer_is_no_controlnet(launch, hub, make_run):
    run = make_run()
    with open(run / "config.yaml", "a") as file:
        file.write(f"plugins: [{VARIANTS / 'full_finetune.py'}]\n")
    assert launch("push", run)[0] == 0
    card = hub.files("user/first")["README.md"].decode()
    assert "A transformer for `black-forest-labs/FLUX.1-dev`" in card
    assert "ControlNet" not in card and "what is said here" not in card
    assert metadata(card)["base_model_relation"] == "finetune"
    code = card.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert "'user/first', subfolder=\"transformer\"" in code
    assert "subfolder='ema/transformer'" in code


def test_a_continued_run(launch, hub, make_run):
    run = make_run()
    changes = [
        (10, {"train.learning_rate": [3e-05, 4e-05]}),
        (20, {"train.learning_rate": [4e-05, 5e-05]}),
        (10, {"train.learning_rate": [5e-05, 1e-05], "data.cache_dir": [None, "/acme/cache"]}),
        (15, {"train.output_dir": ["/acme/a", "/acme/b"], "checkpoint.every_minutes": [None, 3]}),
    ]
    lines = [{"step": step, "checkpoint": "/acme/x", "changed": c} for step, c in changes]
    (run / "resumes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert launch("push", run)[0] == 0
    card = hub.files("user/first")["README.md"].decode()
    assert [line for line in card.splitlines() if line.startswith("| changed")] == [
        "| changed after step 10 | `train.learning_rate` from 3e-05 to 4e-05 |",
        "| changed after step 10 | `train.learning_rate` from 5e-05 to 1e-05 |",
    ]
    assert "acme" not in card


LORA = """
recipe: flux_lora_dreambooth
model:
  pretrained_model_name_or_path: black-forest-labs/FLUX.1-dev
  rank: 16
  lora_alpha: 8
data:
  instance_data_dir: acme/dog
  instance_prompt: a photo of sks dog
  max_sequence_length: 128
train:
  output_dir: {run}
  ema_decay: 0.99
"""


def test_a_lora(launch, hub, make_run):
    file = "pytorch_lora_weights.safetensors"
    run = make_run(config=LORA, files=[file, f"ema/{file}"])
    note(run, local_options=["data.instance_data_dir", "train.output_dir"])
    assert launch("push", run, "--model-id", "club/dog")[0] == 0
    arrived = hub.files("club/dog")
    assert arrived[file] == (run / file).read_bytes()
    card = arrived["README.md"].decode()
    head = metadata(card)
    assert head["instance_prompt"] == "a photo of sks dog"
    assert head["base_model"] == "black-forest-labs/FLUX.1-dev"
    assert head["base_model_relation"] == "adapter" and "datasets" not in head
    assert {"license", "library_name", "pipeline_tag", "tags"} <= head.keys()
    assert "| data set | `dog` |" in card
    assert "diffusers 0.35 or newer reads their alpha" in card
    code = card.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert f"load_lora_weights('club/dog', weight_name='{file}')" in code
    assert "# The averaged weights: subfolder='ema'\n" in code
    assert "max_sequence_length=128,\n" in code


def test_what_is_there_already_is_no_new_commit(launch, hub, make_run):
    run = make_run()
    for _ in range(2):
        code, out, _ = launch("push", run)
        assert (code, out) == (0, f"{hub.url}/user/first\n")
    assert len(hub.repositories["user/first"]["commits"]) == 1


def test_a_card_of_ones_own_is_kept(launch, hub, make_run):
    run = make_run()
    assert launch("push", run)[0] == 0
    (run / "README.md").write_text("# Mine\n")
    code, _, err = launch("push", run)
    assert code == 0
    assert "stays as it is" in err
    assert hub.files("user/first")["README.md"] == b"# Mine\n"


@pytest.mark.parametrize("failure", [500, "drop"])
def test_a_commit_that_fails_is_repeated(launch, hub, make_run, files_of, failure):
    run = make_run()
    hub.failures["/commit/main"] = [failure]
    code, out, err = launch("push", run)
    assert (code, out) == (3, "")
    assert f"the run in {run} is complete, but was not uploaded to user/first" in err
    assert f"`launcher push {run}` uploads it" in err
    assert hub.files("user/first") == {}
    kept = files_of(run)
    stored = [request for request in hub.requests if request.startswith("PUT")]
    code, out, _ = launch("push", run)
    assert (code, out) == (0, f"{hub.url}/user/first\n")
    assert files_of(run) == kept
    assert hub.files("user/first")["ema/controlnet/config.json"] == b'{"n": 2}'
    # What had arrived is not sent again.
    assert [request for request in hub.requests if request.startswith("PUT")] == stored


def test_a_weight_file_that_is_refused(launch, hub, make_run):
    """The address that it is sent to is signed, and shown to nobody."""
    hub.failures["PUT /storage"] = 403
    code, _, err = launch("push", make_run())
    assert code == 3
    assert "the token may not write to user/first" in err
    assert "signed" not in err


def test_what_is_tried_again_is_said_once(launch, hub, make_run, monkeypatch, caplog):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.failures["PUT /storage"] = [503, 503, "drop"]
    code, _, err = launch("push", make_run())
    assert code == 0
    assert err.count("trying again") == 1
    assert "signed" not in err + caplog.text
    assert hub.files("user/first")["controlnet/config.json"] == b'{"n": 0}'


def test_private_is_passed_on(launch, hub, make_run):
    assert launch("push", make_run(), "--private")[0] == 0
    assert hub.repositories["user/first"]["private"] is True
    assert launch("push", make_run("second"))[0] == 0
    assert hub.repositories["user/second"]["private"] is False


def test_the_runs_own_options_hold(launch, hub, make_run):
    from launcher.sections import HubSection

    assert HubSection().hub_private_repo is None
    run = make_run()
    with open(run / "config.yaml", "a") as file:
        file.write("hub:\n  hub_model_id: club/edges\n  hub_private_repo: true\n")
    assert launch("push", run)[0] == 0
    assert hub.repositories["club/edges"]["private"] is True


def test_a_public_repository_is_not_taken_for_a_private_one(launch, hub, make_run):
    hub.repositories["user/first"] = {"private": False, "commits": []}
    code, _, err = launch("push", make_run(), "--private")
    assert code == 2
    assert "user/first exists and is public" in err
    assert hub.files("user/first") == {}


def test_a_dry_run_uploads_nothing(launch, hub, make_run):
    run = make_run()
    code, out, _ = launch("push", run, "--dry-run")
    assert code == 0
    assert "to user/first; if it does not exist" in out
    assert "controlnet/diffusion_pytorch_model.safetensors" in out
    assert out.endswith("Nothing was uploaded.\n")
    assert "first" in (run / "README.md").read_text()
    assert hub.requests == ["GET /api/whoami-v2"]


def test_a_dry_run_needs_no_token(launch, hub, make_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = launch("push", make_run(), "--dry-run")
    assert code == 0
    assert "there is no token" in err
    assert out.startswith("to first;")


WRONG = {
    "no folder": (lambda run: run.parent / "nowhere", "does not exist"),
    "a file": (lambda run: run / "config.yaml", "is a file"),
    "no run": (lambda run: run.parent, "holds no run: it has no config.yaml"),
    "a checkpoint": (lambda run: run / "checkpoint-20", "is a checkpoint"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_run(launch, hub, make_run, case):
    place, message = WRONG[case]
    code, _, err = launch("push", place(make_run()))
    assert code == 2
    assert message in err
    assert hub.requests == []


def test_an_unfinished_run(launch, hub, make_run):
    run = make_run()
    (run / "exported.json").unlink()
    code, _, err = launch("push", run)
    assert code == 2
    assert f"the run in {run} is not finished" in err
    assert f"`launcher --resume {run}` goes on with it" in err


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("exported.json", "{", "exported.json cannot be read"),
        ("exported.json", "[]", "holds no JSON object"),
        ("exported.json", '{"step": 4}', "does not say which files"),
        ("controlnet/config.json", None, "does not have it any more"),
        ("exported.json", '{"step": 4, "files": [3]}', "does not say which files"),
        ("exported.json", '{"step": 4, "files": ["x"], "sha256": []}', "does not say which files"),
        ("metrics.jsonl", '{"step": 1\n', "a line of"),
        ("validation/figures.jsonl", '["loss", 1]\n', "it is no JSON object"),
    ],
)
def test_a_damaged_run(launch, hub, make_run, name, content, message):
    run = make_run()
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    code, _, err = launch("push", run)
    assert code == 2
    assert message in err


def damage(run, kind):
    """Spoil the weights."""
    file = run / "controlnet" / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    if kind == "missing":
        file.unlink()
    elif kind == "shorter":
        file.write_bytes(content[:-1])
    elif kind == "no header":
        file.write_bytes(bytes(len(content)))
    else:
        note_digests(run)
        file.write_bytes(content[:-1] + b"x")


def note_digests(run):
    exported = json.loads((run / "exported.json").read_text())
    files = {name: (run / name).read_bytes() for name in exported["files"]}
    exported["sha256"] = {name: hashlib.sha256(files[name]).hexdigest() for name in files}
    (run / "exported.json").write_text(json.dumps(exported))


@pytest.mark.parametrize("kind", ["missing", "shorter", "no header", "another byte"])
def test_damaged_weights_are_not_uploaded(launch, hub, make_run, kind):
    run = make_run()
    damage(run, kind)
    for arguments in (), ("--dry-run",):
        code, _, err = launch("push", run, *arguments)
        assert code == 2
        assert "diffusion_pytorch_model.safetensors" in err
        assert err.endswith("Restore it from a copy.\n")
    assert hub.repositories == {}
    assert not (run / "README.md").exists()


def test_weights_whose_digests_are_known(launch, hub, make_run):
    run = make_run()
    note_digests(run)
    assert launch("push", run)[0] == 0


def test_a_run_exports_again_only_from_a_checkpoint_of_its_end(launch, hub, make_run):
    """Without, `--resume` would begin anew and remove what there is."""
    run = make_run()
    damage(run, "shorter")
    checkpoint.write(run, 30, {}, {})
    assert launch("push", run)[2].endswith("Restore it from a copy.\n")
    state = checkpoint.write(run, 40, {"x": np.zeros(3)}, {}) / "state.safetensors"
    err = launch("push", run)[2]
    assert f"remove exported.json, upon which `launcher --resume {run}`" in err
    assert "again from checkpoint-40" in err
    state.write_bytes(state.read_bytes()[:-1])
    assert launch("push", run)[2].endswith("Restore it from a copy.\n")


def test_a_folder_where_the_card_goes(launch, hub, make_run):
    run = make_run()
    (run / "README.md").mkdir()
    code, _, err = launch("push", run)
    assert code == 2
    assert f"{run / 'README.md'} is a folder" in err


def test_a_run_that_is_still_going_on(launch, hub, make_run):
    run = make_run()
    (run / "exported.json").unlink()
    logs = Logs(run)
    logs.reopen("metrics.jsonl")
    code, _, err = launch("push", run)
    assert code == 2
    assert "is still going on. Wait for its end." in err and "--resume" not in err
    logs.close()
    assert "--resume" in launch("push", run)[2]


@pytest.mark.parametrize("name", ["a b", "datasets/user/x", "x-", "a--b", "x.git", "é", ""])
def test_a_malformed_name(launch, hub, make_run, name):
    code, _, err = launch("push", make_run(), "--model-id", name)
    assert code == 2
    assert f"--model-id is {name!r}" in err and "hub_model_id" not in err
    assert hub.requests == []


def test_a_folder_whose_name_no_repository_can_have(launch, hub, make_run):
    for name in ("my first run", "süß"):
        code, _, err = launch("push", make_run(name))
        assert code == 2
        assert f"the name {name!r}" in err and "--model-id" in err


def test_no_token(launch, hub, make_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = launch("push", make_run())
    assert code == 2
    assert "there is no token" in err and "hf auth login" in err


def test_a_wrong_token(launch, hub, make_run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_anotherSecretToken5678")
    code, out, err = launch("push", make_run())
    assert code == 3
    assert "the hub does not accept the token" in err
    assert "anotherSecret" not in out + err


def test_somebody_elses_repository(launch, hub, make_run):
    hub.forbidden.add("others")
    code, _, err = launch("push", make_run(), "--model-id", "others/model")
    assert code == 3
    assert "the token may not write to others/model" in err
    assert "--model-id others/model` uploads it" in err


def test_no_network(launch, hub, make_run, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = launch("push", make_run())
    assert code == 3
    assert "http://127.0.0.1:9 could not be reached" in err


def test_a_full_disk(launch, hub, make_run, small_disk):
    run = shutil.copytree(make_run(), small_disk(400_000) / "run")
    with open(run.parent / "rest", "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    code, _, err = launch("push", run)
    assert code == 2
    assert f"the model card {run / 'README.md'} could not be written: No space left" in err
    assert not (run / "README.md").exists()
    assert "POST /api/repos/create" not in hub.requests


@pytest.mark.parametrize("where", ["/api/whoami", "/commit/main"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_hub_is_waited_for(hub, make_run, where, number):
    run = make_run()
    hub.failures[where] = "hang"
    process = subprocess.Popen(
        [*LAUNCHER, "push", str(run), "--private"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert hub.received.wait(60)
    start = time.monotonic()
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert process.returncode == 128 + number
    assert f"the run in {run} is complete, and not uploaded. `launcher push {run} --private`" in err
    assert "Traceback" not in err and out == ""
    assert hub.token not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_plugins_are_loaded(make_run, number):
    run = make_run()
    (run / "v.py").write_text(
        f"import pathlib, time\npathlib.Path({str(run)!r}, 'loading').touch()\ntime.sleep(30)\n"
    )
    with open(run / "config.yaml", "a") as file:
        file.write("plugins: [v.py]\n")
    process = subprocess.Popen([*LAUNCHER, "push", str(run)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (run / "loading").exists() and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, number)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + number
    assert f"interrupted; nothing was uploaded. `launcher push {run}` does it" in err
