"""A flipped byte anywhere, a file cut short: found, and never taken for what was encoded."""

import os

import numpy as np
import pytest

from launcher.training.cache import DamagedEntryError, DiskCache
from launcher.training.cache.upkeep import drop, verify
from tests.launcher.training.cache.fake_encoder import Encoder


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def offsets_of_header_and_keys(layout):
    start = len(layout.header)
    return [0, 3, 7, 8, 20, start // 2, start - 1, start, start + 17, start + 32 * layout.count - 1]


@pytest.mark.parametrize("which", range(10))
def test_header_and_keys(filled, open_cache, keys, check, files, which):
    whole = files(filled.directory)
    path, layout = filled.listing()[0]
    flip(path, offsets_of_header_and_keys(layout)[which])
    cache = open_cache()
    assert [damaged[0] for damaged in cache.damaged] == [path]
    assert cache.missing(keys).sum() == layout.count
    assert verify(cache).shards == cache.damaged
    encoder = Encoder(keys)
    cache.fill("text", keys, encoder, str, batch_size=4, about={"encoder": "T5"})
    assert len(encoder.positions) == layout.count
    assert cache.damaged == []
    assert files(cache.directory) == whole
    check(cache)


@pytest.mark.parametrize("size", [0, 4, 100, 1000, -1])
def test_cut_short(filled, open_cache, keys, check, files, size):
    whole = files(filled.directory)
    path, layout = filled.listing()[0]
    os.truncate(path, size if size >= 0 else layout.size - 1)
    cache = open_cache()
    assert [damaged[0] for damaged in cache.damaged] == [path]
    cache.fill("text", keys, Encoder(keys), str, batch_size=4, about={"encoder": "T5"})
    assert files(cache.directory) == whole
    check(cache)


def test_longer_than_it_should_be(filled, open_cache):
    path, layout = filled.listing()[0]
    with open(path, "ab") as file:
        file.write(b"\0")
    says = f"has {layout.size + 1} bytes and should have {layout.size}"
    assert open_cache().damaged == [(path, says)]


@pytest.mark.parametrize("name", ["embeds", "moments", "pooled", "size"])
@pytest.mark.parametrize("in_checksums", [False, True])
@pytest.mark.parametrize("end", ["first byte", "last byte"])
def test_data_and_checksums(filled, open_cache, keys, check, name, in_checksums, end):
    path, layout = filled.listing()[0]
    (array,) = [array for array in layout.arrays if array.name == name]
    start, length = (
        (array.checksums, 8) if in_checksums else (array.offset, array.row_bytes)
    )  # fmt: skip
    flip(path, start + 3 * length + (0 if end == "first byte" else length - 1))
    position = int(np.flatnonzero([filled._locate(k.tobytes())[1] == 3 for k in keys])[0])
    cache = open_cache(verify=True)
    key = next(k for k in keys if cache._locate(k.tobytes()) == (cache.listing()[0], 3)).tobytes()
    with pytest.raises(DamagedEntryError) as caught:
        cache.get(key)
    assert (caught.value.key, caught.value.path, caught.value.name) == (key, path, name)
    assert open_cache().get(key).keys() == {"embeds", "moments", "pooled", "size"}
    (entry,) = verify(cache).entries
    assert (entry.path, entry.row, entry.key, entry.arrays) == (path, 3, key.hex(), [name])
    # The way out.
    cache.discard([key])
    encoder = Encoder(keys)
    cache.fill("text", keys, encoder, str, batch_size=4)
    assert len(encoder.positions) == 1 and keys[encoder.positions[0]].tobytes() == key
    assert verify(cache).entries == [] and position >= 0
    check(cache)
    check(open_cache(verify=True))


def test_a_flipped_byte_anywhere_is_found(filled, open_cache):
    path, layout = filled.listing()[0]
    random = np.random.default_rng(0)
    for offset in random.choice(layout.size, 200, replace=False):
        flip(path, offset)
        damage = verify(open_cache())
        assert damage.shards or damage.entries, offset
        flip(path, offset)
    damage = verify(open_cache())
    assert not damage.shards and not damage.entries


def test_discarding_drops_what_else_is_damaged_in_the_shard(filled, open_cache, keys, check):
    path, layout = filled.listing()[0]
    array = layout.arrays[0]
    flip(path, array.offset)
    flip(path, array.offset + 5 * array.row_bytes)
    others = np.flatnonzero([filled._locate(k.tobytes())[0].path == path for k in keys])
    filled.discard([keys[others[2]].tobytes()])
    assert np.flatnonzero(filled.missing(keys)).tolist() == others[[0, 2, 5]].tolist()
    assert not os.path.exists(path)
    left = sorted(set(range(50)) - set(others[[0, 2, 5]].tolist()))
    check(filled, left)
    check(open_cache(verify=True), left)


def test_discarding_all_of_a_shard_leaves_no_file(filled, keys):
    filled.discard(keys)
    assert len(filled) == 0 and filled.listing() == []
    assert os.listdir(filled.directory / "text") == []
    filled.discard(keys)


def test_a_shard_cut_short_while_it_is_in_use(filled, open_cache, keys, check):
    cache = open_cache()
    check(cache, [0])
    path, layout = cache._locate(keys[49].tobytes())[0]
    os.truncate(path, layout.size - 1)
    with pytest.raises(DamagedEntryError):
        cache.get(keys[49].tobytes())
    cache.discard([keys[49].tobytes()])
    cache.fill("text", keys, Encoder(keys), str, batch_size=4)
    check(cache)
    check(open_cache(verify=True))


def test_drop_removes_what_is_damaged(filled, open_cache, keys, check):
    first, second = filled.listing()[:2]
    flip(first.path, 9)
    flip(second.path, second.layout.size - 1)
    cache = open_cache()
    drop(cache, verify(cache))
    assert cache.damaged == [] and not os.path.exists(first.path)
    assert cache.missing(keys).sum() == first.layout.count + 1
    damage = verify(DiskCache(cache.directory))
    assert (damage.shards, damage.entries) == ([], [])


def test_another_format_is_not_read(filled, open_cache, monkeypatch):
    from launcher.training.cache import shards

    shards._parse.cache_clear()
    monkeypatch.setattr(shards, "FORMAT", "launcher-encodings-0")
    assert {reason for _, reason in open_cache().damaged} == {
        "is of format 'launcher-encodings-1', not 'launcher-encodings-0'"
    }
    shards._parse.cache_clear()
