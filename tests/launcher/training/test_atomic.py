"""A folder is there whole or not at all, also when the process is killed."""

import os
import signal
import subprocess
import sys
from textwrap import dedent

import pytest

from launcher.training import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "out"
    with atomic.folder(target) as work:
        (work / "sub").mkdir()
        (work / "sub" / "a").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    assert names(tmp_path) == ["out"]


@pytest.fixture
def disk(monkeypatch):
    """What is asked of the disk, in order."""
    asked = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(descriptor):
        asked.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(how, old, new):
        asked.append(("rename", str(new)))
        how(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", lambda old, new: renamed(rename, old, new))
    monkeypatch.setattr(os, "replace", lambda old, new: renamed(replace, old, new))
    return asked


def test_a_power_cut_leaves_no_folder_with_empty_files(tmp_path, disk):
    with atomic.folder(tmp_path / "out") as work:
        (work / "sub").mkdir()
        (work / "sub" / "a").write_text("1")
        (work / "b").write_text("2")
    written = {str(work), str(work / "sub"), str(work / "sub" / "a"), str(work / "b")}
    assert {path for _, path in disk[:4]} == written
    assert disk[4:] == [("rename", str(tmp_path / "out")), ("sync", str(tmp_path))]


def test_nor_an_empty_file(tmp_path, disk):
    atomic.write_text(tmp_path / "config.yaml", "a: 1\n", durable=True)
    (first, partial), *rest = disk
    assert first == "sync" and partial.endswith(".partial")
    assert rest == [("rename", str(tmp_path / "config.yaml")), ("sync", str(tmp_path))]
    assert (tmp_path / "config.yaml").read_text() == "a: 1\n"


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic.folder(tmp_path / "out") as work:
        (work / "a").write_text("1")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_existing_folder_is_kept_unless_replace(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    with pytest.raises(FileExistsError), atomic.folder(target):
        pass
    with pytest.raises(ZeroDivisionError), atomic.folder(target, replace=True):
        raise ZeroDivisionError
    assert names(target) == ["old"]
    with atomic.folder(target, replace=True) as work:
        (work / "new").write_text("2")
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_killed_writer_leaves_the_old_folder_and_the_next_cleans_up(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    killed = dedent(
        f"""
        import os, signal
        from launcher.training import atomic
        with atomic.folder({str(target)!r}, replace=True) as work:
            (work / "half").write_text("2")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", killed], cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    assert names(target) == ["old"]
    with atomic.folder(target, replace=True) as work:
        (work / "new").write_text("3")
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_killed_between_the_two_renames(tmp_path):
    """The old folder has been moved aside and the new one is not yet in place."""
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "old").write_text("1")
    (tmp_path / ".out.partial").mkdir()
    with pytest.raises(FileExistsError), atomic.folder(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == ["old"]
