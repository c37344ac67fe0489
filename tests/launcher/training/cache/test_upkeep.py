"""What `prune` removes and what it does not; where a cache is; sizes and times."""

import os
import time

import numpy as np
import pytest

from launcher.training.cache import DiskCache
from launcher.training.cache.shards import Writer, make_layout
from launcher.training.cache.upkeep import locate, prune, summarise, verify
from launcher.training.errors import UserError
from launcher.training.sizes import age_text, parse_size, parse_time, size_text
from tests.launcher.training.cache.fake_encoder import Encoder, make_keys

DAY = 24 * 3600

PARTIAL = """
import os, sys
import numpy as np
from launcher.training.cache.shards import Writer, make_layout

specs = {"a": (np.dtype("f4"), (2,))}
writer = Writer(sys.argv[1], make_layout("text", {}, 1, specs), np.zeros((1, 32), np.uint8))
print("ready", flush=True)
sys.stdin.read() if len(sys.argv) > 2 else os._exit(1)
"""


def test_summary(filled, keys):
    other = Encoder(keys[:4])
    filled.fill("image", keys[:0], other, str)
    filled.fill("image", make_keys(4, "image"), other, str, batch_size=4, about={"vae": "v"})
    oldest = min(filled.listing()).path
    os.utime(oldest, (1, 1))
    image, text = summarise(filled)
    assert (image.kind, image.entries, image.shards, image.about) == ("image", 4, 1, {"vae": "v"})
    assert (text.kind, text.entries, text.shards, text.about) == ("text", 50, 4, {"encoder": "T5"})
    assert text.arrays["embeds"] == "bfloat16 [3, 50]"
    assert text.size + image.size == sum(os.stat(s.path).st_size for s in filled.listing())
    assert time.time() - text.last_used < 60


def test_nothing_to_prune(filled, files):
    before = files(filled.directory)
    assert prune(filled) == []
    assert files(filled.directory) == before


def test_only_dead_processes_leave_leftovers(filled, start, check):
    folder = filled.directory / "text"
    dead = start(PARTIAL, folder)
    dead.stdout.read()
    dead.wait()
    (left,) = [n for n in os.listdir(folder) if n.endswith(".partial")]
    writer = Writer(
        str(folder),
        make_layout("text", {}, 1, {"a": (np.dtype("f4"), (2,))}),
        make_keys(1, "other"),
    )
    mine = set(os.listdir(folder))
    assert [os.path.basename(r.path) for r in prune(filled, dry_run=True)] == [left]
    assert set(os.listdir(folder)) == mine
    assert [os.path.basename(r.path) for r in prune(filled)] == [left]
    assert set(os.listdir(folder)) == mine - {left}
    writer.add({"a": np.ones((1, 2), np.float32)})
    writer.finish()
    assert prune(DiskCache(filled.directory)) == []
    check(filled)


def test_damaged_shards_are_pruned(filled, open_cache):
    path = filled.listing()[1].path
    os.truncate(path, 30)
    cache = open_cache()
    (removal,) = prune(cache)
    assert (removal.path, removal.size) == (path, 30)
    assert not os.path.exists(path) and cache.damaged == []


def test_unused_shards_are_pruned_when_asked(filled, keys):
    old, older = filled.listing()[:2]
    now = time.time()
    os.utime(old.path, (now - 31 * DAY,) * 2)
    os.utime(older.path, (now - 90 * DAY,) * 2)
    assert prune(filled) == []
    (removal,) = prune(filled, unused_for=40 * DAY)
    assert removal.path == older.path
    assert filled.missing(keys).sum() == older.layout.count
    assert len(prune(filled, unused_for=0)) == 3
    assert len(filled) == 0


def test_the_longest_unused_go_first(filled):
    listing = filled.listing()
    now = time.time()
    for age, shard in enumerate(listing):
        os.utime(shard.path, (now - age,) * 2)
    sizes = [shard.layout.size for shard in listing]
    assert prune(filled, max_size=sum(sizes)) == []
    removed = prune(filled, max_size=sum(sizes) - 1, dry_run=True)
    assert [r.path for r in removed] == [listing[-1].path]
    removed = prune(filled, max_size=sizes[0])
    assert [r.path for r in removed] == [s.path for s in listing[:0:-1]]
    assert filled.listing() == listing[:1]
    assert len(prune(filled, max_size=0)) == 1


def test_entries_that_are_there_twice(tmp_path, keys, check, files):
    """The largest shard keeps them: the smaller ones are quicker to write anew."""
    cache = DiskCache(tmp_path / "cache", max_shard_entries=64)
    folder = tmp_path / "cache" / "text"
    folder.mkdir(parents=True)
    parts = [slice(40), slice(10, 50), *(slice(n, n + 1) for n in range(8))]
    for number, part in enumerate(parts):
        wanted, encoder = np.arange(50)[part].tolist(), Encoder(keys)
        other = DiskCache(tmp_path / str(number), max_shard_entries=64)
        other.fill(
            "text", keys[part], lambda at, w=wanted, e=encoder: e([w[p] for p in at]), str
        )  # fmt: skip
        (shard,) = other.listing()
        os.utime(shard.path, (1e9, 1e9))
        os.rename(shard.path, folder / os.path.basename(shard.path))
    cache.refresh()
    assert len(cache) == 40 + 40 + 8
    before = files(cache.directory)
    planned = prune(cache, dry_run=True)
    assert files(cache.directory) == before
    removals = prune(cache)
    assert removals == planned
    assert sorted(removal.reason for removal in removals) == [
        *["1 of its 1 entries are in other shards, too"] * 8,
        "30 of its 40 entries are in other shards, too",
    ]
    assert len(cache) == 50 and len(cache.listing()) == 2
    assert {os.stat(shard.path).st_mtime for shard in cache.listing()} == {1e9}
    check(cache)
    check(DiskCache(cache.directory, verify=True))
    assert not verify(cache).entries


def test_a_read_only_cache_cannot_be_pruned(small_disk, keys, encoder, open_cache):
    folder = small_disk(10**6)
    DiskCache(folder).fill("text", keys, encoder, str)
    small_disk.read_only()
    with pytest.raises(UserError, match="is read-only"):
        prune(DiskCache(folder), unused_for=-1)


def test_where_a_cache_is(tmp_path, monkeypatch, filled):
    folder = filled.directory
    assert locate(str(folder)) == folder
    root = tmp_path / "root"
    root.mkdir()
    folder.rename(root / "encodings")
    assert locate(str(root)) == locate(str(root / "encodings")) == root / "encodings"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with pytest.raises(UserError, match=r"no cache at .*xdg/launcher/encodings, where runs"):
        locate(None)
    (tmp_path / "xdg" / "launcher" / "encodings").mkdir(parents=True)
    assert locate(None) == tmp_path / "xdg" / "launcher" / "encodings"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/root") == root / "encodings"


def test_what_is_no_cache(tmp_path, filled):
    with pytest.raises(UserError, match=r"holds the entries of one kind; .*around it: .*/cache\."):
        locate(str(filled.directory / "text"))
    with pytest.raises(UserError, match="there is no folder"):
        locate(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        locate(str(tmp_path / "file"))
    weights = tmp_path / "weights"
    (weights / "vae").mkdir(parents=True)
    assert locate(str(weights)) == weights  # nothing in it yet
    (weights / "vae" / "model.safetensors").write_text("")
    with pytest.raises(UserError, match="is no cache of encodings"):
        locate(str(weights))
    assert prune(DiskCache(weights)) == []
    assert (weights / "vae" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50e9), ("1.5 TB", 1.5e12), ("7B", 7), ("2MiB", 2**21), ("3kb", 3000), ("0B", 0)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "50", "GB", "-1GB", "1e3GB", "5 Gb it", "nan", "inf GB"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="as in 50GB"):
        parse_size(text)


@pytest.mark.parametrize(("text", "time"), [("30d", 30 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY)])
def test_times(text, time):
    assert parse_time(text) == time


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "30 days", "٣d"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="as in 30d"):
        parse_time(text)


def test_sizes_and_ages_in_words():
    sizes = (0, 999, 1000, 999_499, 999_500, 4_194_304, 123_456_789, 5e15)
    assert [size_text(size) for size in sizes] == [
        "0 B", "999 B", "1.00 kB", "999 kB", "1.00 MB", "4.19 MB", "123 MB", "5,000 TB",
    ]  # fmt: skip
    ages = (-5, 59, 60, 7200, 3 * DAY)
    assert [age_text(age) for age in ages] == [
        "just now", "just now", "1 minute ago", "2 hours ago", "3 days ago",
    ]  # fmt: skip
