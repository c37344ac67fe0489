"""`launcher cache`: what is in it, whether it is whole, what can go."""

import json
import os
import time

import numpy as np
import pytest

from launcher import cli
from launcher.training.cache import DiskCache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of two kinds, in the place where runs keep it by default."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "launcher" / "encodings"
    keys = np.random.default_rng(0).integers(0, 256, (30, 32), np.uint8)

    def encode(positions):
        return {"embeds": np.array(positions, np.float16)[:, None] + np.zeros(100, np.float16)}

    cache = DiskCache(folder, max_shard_entries=8)
    cache.fill("text", keys[:20], encode, str, batch_size=4, about={"encoder": "T5"})
    cache.fill("image", keys[20:], encode, str, batch_size=4)
    return folder


@pytest.fixture
def run(capsys):
    """Run `launcher cache ...`: exit code, output, errors."""

    def run_(*arguments):
        code = cli.main(["cache", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_


def shards(folder):
    return sorted(str(path) for path in folder.glob("*/*.safetensors"))


def damage(path):
    with open(path, "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff")


def test_ls(run, folder):
    code, out, err = run("ls")
    assert (code, err) == (0, "")
    assert out.startswith(f"{folder}: 30 entries, ")
    assert "\nimage: 10 entries in 2 shards, " in out
    assert "\ntext: 20 entries in 3 shards, " in out
    assert ", last used just now\n    embeds   float16 [100]\n    encoder  T5\n" in out


@pytest.mark.parametrize("name", [".", "..", None])
def test_the_folder_may_be_that_of_data_cache_dir(run, folder, name):
    arguments = [] if name is None else [folder / name]
    assert "30 entries" in run("ls", *arguments)[1]


def test_ls_json(run, folder):
    os.truncate(shards(folder)[0], 5)
    found = json.loads(run("ls", "--json")[1])
    assert found["directory"] == str(folder)
    assert [(g["kind"], g["shards"]) for g in found["groups"]] == [("image", 1), ("text", 3)]
    assert found["groups"][1]["about"] == {"encoder": "T5"}
    assert found["damaged"][0]["path"] == shards(folder)[0]


def test_ls_says_that_something_is_damaged(run, folder):
    os.truncate(shards(folder)[0], 5)
    assert run("ls")[1].endswith("1 damaged shard: `launcher cache verify` names them.\n")


def test_verify(run, folder):
    code, out, err = run("verify")
    assert (code, out) == (0, f"{folder}: 30 entries in 5 shards, all intact\n")
    assert "verifying: shard 5/5" in err


def test_verify_names_what_is_damaged_and_drops_it(run, folder):
    first, second = shards(folder)[:2]
    damage(first)
    os.truncate(second, 5)
    code, out, err = run("verify", folder)
    assert (code, out) == (2, "")
    assert f"- {second} has a damaged header, or is cut short" in err
    assert f"- {first}, entry " in err and "): embeds\n" in err
    assert f"`launcher cache verify {folder} --drop` removes that" in err
    assert shards(folder)[:2] == [first, second]

    code, out, err = run("verify", "--drop")
    assert code == 0 and "Removed all of that; the next run encodes it anew." in out
    assert second not in shards(folder) and first not in shards(folder)
    assert "all intact" in run("verify")[1]


def test_verify_json(run, folder):
    damage(shards(folder)[0])
    code, out, err = run("verify", "--json")
    assert code == 2 and "is damaged" in err
    found = json.loads(out)
    assert found["entries"] == 30 and found["dropped"] is False
    (entry,) = found["damaged_entries"]
    assert entry["path"] == shards(folder)[0] and entry["arrays"] == ["embeds"]
    code, out, _ = run("verify", "--json", "--drop")
    assert code == 0 and json.loads(out)["dropped"] is True
    assert json.loads(run("verify", "--json")[1])["damaged_entries"] == []


def test_of_much_damage_the_first_lines(run, folder):
    for path in shards(folder):
        with open(path, "r+b") as file:
            size = os.stat(path).st_size
            file.seek(size // 2)
            file.write(b"\xee" * (size - size // 2))
    err = run("verify")[2]
    assert 10 < err.count("\n- ") <= 21


def test_prune(run, folder):
    assert run("prune") == (0, f"{folder}: nothing to remove\n", "")
    old = shards(folder)[0]
    ago = time.time() - 40 * 24 * 3600
    os.utime(old, (ago, ago))
    code, out, _ = run("prune", "--unused-for", "30d", "--dry-run")
    assert code == 0 and out.startswith(f"{old}: not used any more (")
    assert out.splitlines()[-1].startswith("Would remove ")
    assert os.path.exists(old)
    assert run("prune", "--unused-for=30d")[1].splitlines()[-1].startswith("Removed ")
    assert not os.path.exists(old)
    assert "longest not used" in run("prune", "--max-size", "3KB", folder)[1]
    assert sum(map(os.path.getsize, shards(folder))) <= 3000


def test_prune_json(run, folder):
    found = json.loads(run("prune", "--max-size", "0B", "--json", "--dry-run")[1])
    assert found["dry_run"] is True
    assert {removal["path"] for removal in found["removed"]} == set(shards(folder))
    assert set(found["removed"][0]) == {"path", "reason", "size"}


def test_a_cache_that_is_empty(run, folder):
    run("prune", "--max-size", "0B")
    assert run("ls")[1] == f"{folder}: 0 entries, 0 B\n"
    assert "0 entries in 0 shards, all intact" in run("verify")[1]
    assert "nothing to remove" in run("prune")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "The verbs are ls, verify, prune"),
        (["verfy"], "did you mean `verify`? The verbs are ls, verify, prune; `launcher cache"),
        (["somewhere"], "there is no verb `somewhere` of `launcher cache`."),
        (["--json"], "does not take `--json`"),
        (["ls", "none"], "there is no folder none"),
        (["ls", "a", "b"], "does not take `b`"),
        (["ls", "--jsn"], "did you mean `--json`?"),
        (["prune", "--max-size", "50"], "--max-size: '50' is no size; write it with its unit"),
        (["prune", "--max-size", "-5GB"], "--max-size"),
        (["prune", "--unused-for", "30"], "--unused-for: '30' is no time; write it with its unit"),
        (["prune", "--unused-for", "1y"], "as in 30d, 12h or 2w"),
        (["prune", "--unused-for"], "expected one argument"),
        (["verify", __file__], "is a file"),
        (["prune", os.path.dirname(__file__)], "is no cache of encodings"),
    ],
)
def test_mistakes(run, folder, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    before = shards(folder)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1
    assert shards(folder) == before


def test_there_is_none_yet(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for verb in ("ls", "verify", "prune"):
        code, _, err = run(verb)
        assert code == 2 and f"there is no cache at {tmp_path}/launcher/encodings" in err


@pytest.mark.parametrize("arguments", [["-h"], ["ls", "-h"], ["verify", "--help"], ["prune", "-h"]])
def test_help_has_an_example(run, arguments):
    code, out, _ = run(*arguments)
    assert code == 0 and "example:\n  launcher cache " in out
