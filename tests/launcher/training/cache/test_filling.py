"""Filling a cache, whatever happens meanwhile: what is there at the end is always the same."""

import errno
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from launcher.training.cache import DiskCache
from launcher.training.cache.filling import Behind, divide
from launcher.training.cache.shards import PARTIAL_NAME
from launcher.training.cache.upkeep import prune
from launcher.training.errors import UserError
from tests.launcher.training.cache.fake_encoder import Encoder, make_keys

COUNT = 240

#: Arguments: folder, seconds per batch, rank, number of processes. Prints what it encodes.
FILL = """
import sys, time
from launcher.training.cache import DiskCache
from tests.launcher.training.cache.fake_encoder import Encoder, make_keys

folder, seconds, rank, world_size = sys.argv[1], *map(float, sys.argv[2:])
keys = make_keys(240)
encoder = Encoder(keys)

def encode(positions):
    time.sleep(seconds)
    print(*dict.fromkeys(positions), flush=True)
    return encoder(positions)

cache = DiskCache(
    folder, rank=int(rank), world_size=int(world_size),
    max_shard_entries=24, max_shard_bytes=8 * 1000,
)
print("ready", flush=True)
cache.fill("text", keys, encode, str, batch_size=4)
"""

#: The same, but the process kills itself at a call to the system, counted from the beginning.
FILL_AND_DIE = """
import os, signal
left = int(sys.argv.pop())

def dying(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("mkdir", "open", "pwrite", "fsync", "rename", "close"):
    setattr(os, name, dying(getattr(os, name)))
"""


def fill(folder, **options):
    cache = DiskCache(folder, max_shard_entries=24, max_shard_bytes=8 * 1000, **options)
    encoder = Encoder(make_keys(COUNT))
    cache.fill("text", make_keys(COUNT), encoder, str, batch_size=4)
    return encoder


@pytest.fixture
def undisturbed(tmp_path, files):
    fill(tmp_path / "undisturbed")
    content = files(tmp_path / "undisturbed")
    assert len(content) == 20
    return content


def partials(folder):
    return [n for _, _, names in os.walk(folder) for n in names if PARTIAL_NAME.fullmatch(n)]


def test_killed_twenty_times(tmp_path, start, files, undisturbed):
    folder = tmp_path / "cache"
    moments = random.Random(5)
    encoded = []
    for _ in range(20):
        there = set(np.flatnonzero(~DiskCache(folder).missing(make_keys(COUNT))).tolist())
        process = start(FILL, folder, 0.03, 0, 1)
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.12))
        process.kill()
        lines = process.stdout.read().splitlines(keepends=True)
        assert process.wait() == -signal.SIGKILL
        positions = {int(p) for line in lines if line.endswith("\n") for p in line.split()}
        assert not positions & there, "what was there was encoded again"
        encoded.append(len(positions))
        whole = {n: c for n, c in files(folder).items() if not n.endswith(".partial")}
        assert whole.items() <= undisturbed.items()
    assert sum(encoded) > 0
    last = fill(folder)
    assert 0 < len(last.positions) < COUNT
    assert partials(folder)
    prune(DiskCache(folder))
    assert files(folder) == undisturbed


@pytest.mark.parametrize("call", [*range(1, 16), 60, 61, 62, 63, 64])
def test_killed_at_a_call_to_the_system(tmp_path, start, files, undisturbed, call):
    folder = tmp_path / "cache"
    program = FILL.replace('print("ready"', FILL_AND_DIE + '\nprint("ready"')
    program = program.replace("map(float, sys.argv[2:])", "map(float, sys.argv[2:-1])")
    process = start(program, folder, 0, 0, 1, call)
    process.stdout.read()
    assert process.wait() == -signal.SIGKILL
    fill(folder)
    prune(DiskCache(folder))
    assert files(folder) == undisturbed


def test_two_processes_at_once(tmp_path, start, files, undisturbed):
    folder = tmp_path / "cache"
    processes = [start(FILL, folder, seconds, 0, 1) for seconds in (0.003, 0.004)]
    for process in processes:
        process.stdout.read()
        assert process.wait() == 0
    assert files(folder) == undisturbed


def test_a_shard_that_another_process_has_just_finished_is_not_encoded(tmp_path):
    folder = tmp_path / "cache"
    keys = make_keys(COUNT)
    encoder = Encoder(keys)

    def encode(positions):
        if len(encoder.calls) == 1:  # the other one overtakes
            fill(folder)
        return encoder(positions)

    cache = DiskCache(folder, max_shard_entries=24, max_shard_bytes=8 * 1000)
    cache.fill("text", keys, encode, str, batch_size=4)
    assert len(encoder.positions) == 8
    assert not partials(folder) and not cache.missing(keys).any()
    assert cache.get(keys[-1].tobytes())["size"][0] == COUNT - 1


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_processes_share_the_work(tmp_path, world_size):
    folder = tmp_path / "cache"
    shares = [fill(folder, rank=r, world_size=world_size).positions for r in range(world_size)]
    assert sorted(p for share in shares for p in share) == list(range(COUNT))
    assert max(map(len, shares)) <= COUNT // world_size + 8
    assert not DiskCache(folder).missing(make_keys(COUNT)).any()
    assert not fill(folder).positions


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(("batch_size", "limit"), [(8, 256), (1, 1), (3, 100), (300, 256)])
def test_units_cover_all_and_are_whole_batches(count, world_size, batch_size, limit):
    units = divide(count, world_size, batch_size, limit)
    assert [n for unit in units for n in unit] == list(range(count))
    sizes = {len(unit) for unit in units[:-1]}
    assert len(sizes) <= 1
    assert all(size % batch_size == 0 and size <= max(limit, batch_size) for size in sizes)
    shares = [sum(map(len, units[rank::world_size])) for rank in range(world_size)]
    assert max(shares) - count / world_size <= batch_size * len(units[::world_size])


def test_a_disk_that_is_full(small_disk, files, keys, monkeypatch):
    folder = small_disk(100_000) / "cache"
    encoder = Encoder(make_keys(COUNT))
    with pytest.raises(UserError, match=r"240 encodings of 586 B each .*data\.cache_dir") as caught:
        fill(folder)
    assert "141 kB" in str(caught.value)
    # As if nobody could know: quotas, or another process that fills the disk.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10**9))
    with pytest.raises(UserError, match=r"is full .*No space.*`launcher cache prune`.*cache_dir"):
        fill(folder)
    assert not partials(folder)
    cache = DiskCache(folder, verify=True)
    assert cache.damaged == [] and len(cache) % 12 == 0 and len(cache) > 60
    for position in np.flatnonzero(~cache.missing(encoder.keys)):
        entry = cache.get(encoder.keys[position].tobytes())
        assert entry["embeds"].tobytes() == encoder.entry(position)["embeds"].tobytes()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EIO, r"cannot be written to: Input/output error"),
        (errno.EROFS, "is read-only"),
    ],
)
@pytest.mark.parametrize("name", ["open", "pwrite", "fsync", "rename"])
def test_what_the_system_refuses(tmp_path, monkeypatch, name, number, says):
    folder = tmp_path / "cache"
    DiskCache(folder).fill("text", make_keys(8, "other"), Encoder(make_keys(8, "other")), str)
    real, left = getattr(os, name), 3

    def fail(*arguments, **options):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(UserError, match=says):
            fill(folder)
    assert not partials(folder)
    assert not DiskCache(folder).missing(make_keys(8, "other")).any()
    fill(folder)


def test_an_encoder_that_fails_leaves_nothing_unfinished(tmp_path):
    def encode(positions):
        if positions[0] >= 32:
            raise KeyboardInterrupt
        return Encoder(make_keys(COUNT))(positions)

    cache = DiskCache(tmp_path, max_shard_entries=24)
    with pytest.raises(KeyboardInterrupt):
        cache.fill("text", make_keys(COUNT), encode, str, batch_size=4)
    assert not partials(tmp_path)
    assert len(DiskCache(tmp_path)) == len(cache) == 24


def test_jobs_are_done_in_order_and_their_errors_come_out():
    done = []
    with Behind() as behind:
        for number in range(10):
            behind.do(done.append, number)
    assert done == list(range(10))
    with pytest.raises(ZeroDivisionError), Behind() as behind:
        behind.do(lambda: 1 / 0)
