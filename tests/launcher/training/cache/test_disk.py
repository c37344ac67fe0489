"""What is put into a cache, and what comes out."""

import gc
import os
import threading

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from launcher.training.cache import DiskCache
from launcher.training.errors import UserError
from tests.launcher.training.cache.fake_encoder import Encoder, make_keys


def test_what_is_put_in_comes_out(filled, open_cache, check):
    check(filled)
    check(open_cache())
    check(open_cache(verify=True))


def test_only_what_is_missing_is_encoded(filled, open_cache, keys, encoder):
    assert encoder.positions == list(range(50))
    more = np.concatenate([make_keys(7, "other"), keys, make_keys(3, "third")])
    cache, again = open_cache(), Encoder(more)
    assert np.flatnonzero(cache.missing(more)).tolist() == [*range(7), 57, 58, 59]
    cache.fill("text", more, again, str, batch_size=4)
    assert sorted(again.positions) == [*range(7), 57, 58, 59]
    assert not cache.missing(more).any() and len(cache) == 60
    cache.fill("text", more, again, str, batch_size=4)
    assert len(again.positions) == 10


def test_batches_are_always_full(open_cache, keys):
    """Also where what is missing is scattered."""
    cache = open_cache(max_shard_entries=64)
    cache.fill("text", keys[::3], Encoder(keys[::3]), str, batch_size=4)
    encoder = Encoder(keys)
    cache.fill("text", keys, encoder, str, batch_size=4)
    assert all(len(call) == 4 for call in encoder.calls)
    assert len(encoder.calls) == 9  # of 33 missing entries
    assert encoder.calls[-1] == [49] * 4


def test_shards_have_about_the_size_that_is_asked_for(tmp_path, keys):
    cache = DiskCache(tmp_path, max_shard_bytes=8 * 1000, max_shard_entries=40)
    cache.fill("text", keys, Encoder(keys), str, batch_size=4)
    sizes = [shard.layout.size for shard in cache.listing()]
    assert sorted(shard.layout.count for shard in cache.listing()) == [4, 10, 12, 12, 12]
    assert max(sizes) < 8000


def test_the_files_are_safetensors_files(filled, keys):
    shard = filled.listing()[0].path
    tensors = load_file(shard)
    assert tensors["keys"].shape == (len(tensors["size"]), 32)
    positions = tensors["size"][:, 0]
    assert (tensors["keys"] == keys[positions]).all()
    assert tensors["checksum.pooled"].dtype == np.uint64
    expected = [Encoder(keys).entry(p)["moments"] for p in positions]
    assert (tensors["moments"] == np.stack(expected)).all()


def test_arrays_are_aligned_read_only_views(filled, keys):
    entry = filled.get(keys[33].tobytes())
    for array in entry.values():
        assert array.flags.aligned and array.flags.c_contiguous
        assert not array.flags.owndata
        with pytest.raises(ValueError):
            array.setflags(write=True)
        with pytest.raises(ValueError):
            array[...] = 0


def test_every_dtype_and_shape(tmp_path):
    keys = make_keys(5)
    bits = np.random.default_rng(0).integers(0, 256, (5, 4, 48), np.uint8)
    arrays = {"bool": bits % 2 == 0, "scalar": np.arange(5.0), "none": np.zeros((5, 0, 3))}
    for dtype in ["f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1"]:
        arrays[dtype] = bits.view(dtype)
        if dtype[0] == "f":
            arrays[dtype] = np.nan_to_num(arrays[dtype])
    arrays["bf16"] = arrays["f4"].astype(ml_dtypes.bfloat16)
    cache = DiskCache(tmp_path, verify=True)
    cache.fill("mixed", keys, lambda at: {n: a[at] for n, a in arrays.items()}, str, batch_size=2)
    for reader in (cache, DiskCache(tmp_path, verify=True)):
        for position, key in enumerate(keys):
            entry = reader.get(bytes(key))
            assert entry.keys() == arrays.keys()
            for name, array in arrays.items():
                assert entry[name].dtype == array.dtype
                assert np.array_equal(entry[name], array[position])


def test_an_unknown_key_is_a_key_error(filled, keys):
    with pytest.raises(KeyError):
        filled.get(b"\0" * 32)


def test_what_others_wrote_is_seen_after_a_refresh(open_cache, keys, encoder, check):
    early, late = open_cache(), open_cache()
    late.fill("text", keys, encoder, str)
    assert early.missing(keys).all()
    early.refresh()
    assert not early.missing(keys).any()
    check(early)


def test_a_fill_does_not_encode_what_others_wrote(open_cache, keys, encoder):
    early = open_cache()
    open_cache().fill("text", keys, encoder, str)
    again = Encoder(keys)
    early.fill("text", keys, again, str)
    assert not again.calls


def test_entries_found_although_others_moved_them(filled, open_cache, keys, check):
    other = open_cache()
    filled.discard([keys[0].tobytes()])
    check(other, range(1, 50))


def test_a_shard_that_was_removed(filled, open_cache, keys):
    other = open_cache()
    for shard in filled.listing():
        os.unlink(shard.path)
    with pytest.raises(UserError, match=r"removed from .* while it was in use"):
        other.get(keys[5].tobytes())
    assert other.missing(keys).all()


def test_views_stay_good_when_the_shard_is_removed(filled, keys, encoder):
    entry = filled.get(keys[5].tobytes())
    filled.discard(list(keys[:32]))
    assert entry["embeds"].tobytes() == encoder.entry(5)["embeds"].tobytes()


def test_few_files_stay_open_however_many_entries_are_held(tmp_path, check):
    keys = make_keys(600)
    cache = DiskCache(tmp_path, max_shard_entries=2)
    cache.fill("text", keys, Encoder(keys), str, batch_size=2)
    before = len(os.listdir("/proc/self/fd"))
    held = [cache.get(bytes(key)) for key in keys]
    assert len(os.listdir("/proc/self/fd")) - before <= 128
    maps = open_maps(tmp_path)
    assert maps >= 600
    del held
    gc.collect()
    assert open_maps(tmp_path) == 0


def open_maps(folder):
    with open("/proc/self/maps") as maps:
        return sum(str(folder) in line for line in maps)


def test_threads_may_read_while_another_fills(open_cache, check, keys):
    cache = open_cache(max_shard_entries=4)
    cache.fill("text", keys[:20], Encoder(keys), str, batch_size=4)
    stop, failures = threading.Event(), []

    def read():
        try:
            while not stop.is_set():
                check(cache, range(20))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    other = make_keys(100, "other")
    cache.fill("image", other, Encoder(other), str, batch_size=4)
    for key in other[:30]:
        cache.discard([key.tobytes()])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert len(cache) == 90


def test_touch_sets_the_time_of_the_shards_that_are_used(filled, keys):
    for shard in filled.listing():
        os.utime(shard.path, (1, 1))
    filled.touch(keys[:16])
    touched = [s for s in filled.listing() if os.stat(s.path).st_mtime > 1]
    assert len(touched) == 1
    filled.touch([b"\0" * 32])
    os.unlink(touched[0].path)
    filled.touch(keys)


def test_what_an_encoder_must_not_return(open_cache, keys):
    cache = open_cache()
    for wrong in ({}, {"a": np.zeros((3, 2))}, {"a": np.float32(1)}, {"a": np.zeros(4, "c8")}):
        with pytest.raises(ValueError):
            cache.fill("text", keys, lambda at, wrong=wrong: wrong, str, batch_size=4)
    shapes = iter(range(1, 9))
    with pytest.raises(ValueError, match="after"):
        cache.fill("text", keys, lambda at: {"a": np.zeros((4, next(shapes)))}, str, batch_size=4)
    assert len(cache) == 0
    assert not [f for _, _, names in os.walk(cache.directory) for f in names]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_what_is_not_finite_is_named_and_not_kept(open_cache, keys, value, dtype):
    def encode(positions):
        array = np.zeros((4, 2, 3), dtype)
        array[[p == 21 for p in positions], 1, 2] = value
        return {"latents": array}

    cache = open_cache()
    with pytest.raises(UserError, match=r"of the caption 21 is of no use: NaN or .*'latents'"):
        cache.fill("text", keys, encode, lambda p: f"the caption {p}", batch_size=4)
    assert len(cache) == 16
    assert np.flatnonzero(~cache.missing(keys)).tolist() == list(range(16))


def test_no_cache_yet(tmp_path, keys):
    cache = DiskCache(tmp_path / "none" / "yet")
    assert cache.missing(keys).all() and len(cache) == 0
    assert not (tmp_path / "none").exists()


def test_a_file_in_its_place(tmp_path, keys, encoder):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=r"Not a directory.*data.cache_dir"):
        DiskCache(tmp_path / "cache")
    with pytest.raises(UserError, match="Not a directory"):
        DiskCache(tmp_path / "cache" / "inner").fill("text", keys, encoder, str)


def test_other_files_are_left_alone(filled, open_cache, keys, check):
    folder = filled.directory
    for name in ("text/notes.txt", "text/model.safetensors", "readme"):
        (folder / name).write_text("mine")
    cache = open_cache()
    check(cache)
    assert cache.damaged == [] and (folder / "text" / "model.safetensors").exists()


def test_read_only_with_everything_in_it(small_disk, keys, encoder, check, files):
    folder = small_disk(10**6)
    DiskCache(folder).fill("text", keys, encoder, str)
    small_disk.read_only()
    cache = DiskCache(folder, verify=True)
    cache.fill("text", keys, encoder, str)
    cache.touch(keys)
    check(cache)
    with pytest.raises(UserError, match=r"is read-only: .*data.cache_dir"):
        cache.discard([keys[0].tobytes()])
    more = make_keys(60)
    asked = Encoder(more)
    for kind in ("text", "image"):
        with pytest.raises(UserError, match=r"is read-only: .*data.cache_dir"):
            cache.fill(kind, more, asked, str)
    assert not asked.calls
    check(cache)
