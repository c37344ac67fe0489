"""Caches of small shards, and the processes and disks that they have to stand."""

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.training.cache import DiskCache
from tests.launcher.training.cache.fake_encoder import Encoder, make_keys

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def keys():
    return make_keys(50)


@pytest.fixture
def encoder(keys):
    return Encoder(keys)


@pytest.fixture
def open_cache(tmp_path):
    """A cache with small shards; options as those of DiskCache."""

    def open_(**options):
        options = {"max_shard_entries": 16, **options}
        return DiskCache(options.pop("directory", tmp_path / "cache"), **options)

    return open_


@pytest.fixture
def filled(open_cache, keys, encoder):
    """A cache with an entry for each key, in four shards."""
    cache = open_cache()
    cache.fill("text", keys, encoder, str, batch_size=4, about={"encoder": "T5"})
    return cache


@pytest.fixture
def check(keys):
    """Compare entries of a cache with what was encoded."""

    def compare(cache, positions=None):
        encoder = Encoder(keys)
        for position in range(len(keys)) if positions is None else positions:
            entry = cache.get(keys[position].tobytes())
            expected = encoder.entry(position)
            assert entry.keys() == expected.keys()
            for name, array in expected.items():
                assert entry[name].dtype == array.dtype
                assert entry[name].shape == array.shape
                assert entry[name].tobytes() == array.tobytes()

    return compare


@pytest.fixture
def files():
    """All files of a folder: content by relative path."""

    def read(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture
def start(tmp_path):
    """Run a program in a process of its own, which can import what tests can: the Popen object."""
    started = []

    def run(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
