"""Digests of files, remembered."""

import hashlib
import json
import os
import time

import pytest

from launcher.training import digests
from launcher.training.digests import remembered


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(b"one")
    age(path)
    return path


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "memory" / "digests"


@pytest.fixture
def reads(monkeypatch):
    """The files that are read."""
    seen = []
    real = digests.of_file

    def of_file(path):
        seen.append(os.path.basename(path))
        return real(path)

    monkeypatch.setattr(digests, "of_file", of_file)
    return seen


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """It is a minute later than the files' last change, `ctime` included, which nobody can set."""
    now = time.time
    monkeypatch.setattr(digests.time, "time", lambda: now() + 60)


def age(path):
    os.utime(path, (1e9, 1e9))


def digest_of(path, memory, subject="data"):
    with remembered(memory, subject) as digest:
        return digest(path)


def test_of_a_file(file, memory):
    assert digest_of(file, memory) == hashlib.sha256(b"one").digest()


def test_of_a_large_file(tmp_path):
    content = os.urandom(3_000_001)
    (tmp_path / "large").write_bytes(content)
    assert digests.of_file(tmp_path / "large") == hashlib.sha256(content).digest()


def test_a_file_is_read_once(file, memory, reads):
    assert digest_of(file, memory) == digest_of(file, memory)
    assert reads == ["a.bin"]


def test_without_a_memory_it_is_read_each_time(file, reads):
    digest_of(file, None)
    digest_of(file, None)
    assert len(reads) == 2


def test_one_that_is_changed_is_read_again_though_size_and_mtime_are_as_before(file, memory, reads):
    digest_of(file, memory)
    file.write_bytes(b"two")
    age(file)
    assert digest_of(file, memory) == hashlib.sha256(b"two").digest()
    assert len(reads) == 2


def test_one_that_is_replaced_is_read_again(file, memory, reads):
    digest_of(file, memory)
    other = file.with_name("b.bin")
    other.write_bytes(b"two")
    age(other)
    os.replace(other, file)
    assert digest_of(file, memory) == hashlib.sha256(b"two").digest()


def test_one_that_has_just_been_written_is_not_remembered(file, memory, reads, monkeypatch):
    monkeypatch.setattr(digests.time, "time", lambda: os.stat(file).st_ctime + 1)
    digest_of(file, memory)
    digest_of(file, memory)
    assert len(reads) == 2


def test_one_that_changes_while_it_is_read_is_not_remembered(file, memory, monkeypatch):
    real = digests.of_file

    def of_file(path):
        value = real(path)
        file.write_bytes(b"two")
        return value

    monkeypatch.setattr(digests, "of_file", of_file)
    digest_of(file, memory)
    monkeypatch.setattr(digests, "of_file", real)
    assert digest_of(file, memory) == hashlib.sha256(b"two").digest()


def test_subjects_are_kept_apart(file, memory, reads):
    digest_of(file, memory, "one")
    digest_of(file, memory, "two")
    assert len(reads) == 2
    assert len(list(memory.iterdir())) == 2


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"x": 1}', "\x00\xff"])
def test_a_damaged_memory_is_as_if_forgotten(file, memory, content):
    digest_of(file, memory)
    (kept,) = memory.iterdir()
    kept.write_text(content)
    assert digest_of(file, memory) == hashlib.sha256(b"one").digest()
    assert digest_of(file, memory) == hashlib.sha256(b"one").digest()


def test_where_nothing_can_be_written_nothing_is_remembered(file, tmp_path, reads):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert digest_of(file, tmp_path / "file" / "digests") == hashlib.sha256(b"one").digest()
    assert len(reads) == 2


def test_nothing_is_written_where_nothing_is_new(file, memory):
    digest_of(file, memory)
    (kept,) = memory.iterdir()
    before = kept.stat()
    digest_of(file, memory)
    assert kept.stat().st_ino == before.st_ino


def test_a_missing_file_is_the_callers_business(memory, tmp_path):
    with pytest.raises(FileNotFoundError):
        digest_of(tmp_path / "none", memory)


def test_what_is_remembered_says_where_it_is_from(file, memory):
    digest_of(file, memory)
    (kept,) = memory.iterdir()
    assert list(json.loads(kept.read_text())) == [str(file)]
