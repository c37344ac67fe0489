"""Checkpoints on disk: written whole or not at all, and checked before they are used.

    OUTPUT_DIR/checkpoint-500/
        manifest.json           what it is, with size and SHA-256 of every other file
        state.safetensors       the tensors, each in its own dtype
        ...                     whatever else the run puts there

A folder of that name is complete: it was filled under another name and renamed (see `atomic`). What
the manifest adds is the proof that nothing has happened to it since.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.training import atomic, digests, safetensors_files
from launcher.training.errors import UserError
from launcher.training.safetensors_files import TensorInfo

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
STATE = "state.safetensors"
#: Changed when an older program could not read what a newer one writes.
FORMAT = 1

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: its folder.
        step: optimisation steps that were done when it was taken.
        about: what the run noted in it.
    """

    path: Path
    step: int
    about: Mapping[str, Any]


class DamagedError(UserError):
    """A checkpoint is not what was written."""


def path_of(output_dir: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return output_dir / f"checkpoint-{step}"


def step_of(path: Path) -> int | None:
    """The step that a folder's name says it is the checkpoint of; None: none."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is meant as a checkpoint: by its name, or because it has been renamed."""
    return step_of(path) is not None or (path / MANIFEST).exists()


def steps_in(output_dir: Path) -> list[int]:
    """The steps that a run's folder has checkpoints of, damaged or not, in rising order."""
    if not output_dir.is_dir():
        return []
    found = map(step_of, output_dir.iterdir())
    return sorted(step for step in found if step is not None)


def write(
    output_dir: Path,
    step: int,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    about: Mapping[str, Any],
    add: Callable[[Path], object] = lambda folder: None,
    between: Callable[[], object] | None = None,
) -> Path:
    """Write a checkpoint; one of the same step is replaced.

    Args:
        output_dir: the run's folder; exists.
        step: optimisation steps done.
        tensors: arrays by name. bfloat16 as `ml_dtypes` has it, or MindSpore.
        about: what JSON can hold.
        add: puts further files into the folder that it is given.
        between: called after every tensor, and after every megabyte that is read again.

    Returns:
        The checkpoint's folder.
    """
    target = path_of(output_dir, step)
    with atomic.folder(target, replace=True) as work:
        infos = {name: TensorInfo(_format_name(a), a.shape) for name, a in tensors.items()}

        def data_of(name: str) -> np.ndarray[Any, Any]:
            if between is not None:
                between()
            return tensors[name]

        safetensors_files.write(work / STATE, infos, data_of)
        add(work)
        files = {
            str(path.relative_to(work)): {
                "size": path.stat().st_size,
                "sha256": digests.of_file(path, between).hex(),
            }
            for path in sorted(work.rglob("*"))
            if path.is_file()
        }
        manifest = {"format": FORMAT, "step": step, "files": files, "about": dict(about)}
        manifest["sha256"] = _digest_of(manifest)
        (work / MANIFEST).write_text(
            json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    return target


def read(path: Path) -> Checkpoint:
    """Open a checkpoint and check its files: that they are there, and hold what was written.

    Reads every byte.

    Raises:
        DamagedError: they do not.
        UserError: the folder is no checkpoint.
    """
    manifest = _read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        try:
            size = file.stat().st_size
            if size != expected["size"]:
                raise DamagedError(
                    f"{file} has {size} bytes, and was written with {expected['size']}."
                )
            if digests.of_file(file).hex() != expected["sha256"]:
                raise DamagedError(f"{file} does not hold what was written: its checksum differs.")
        except FileNotFoundError:
            raise DamagedError(f"{file} is missing.") from None
        except OSError as error:
            raise DamagedError(f"{file} cannot be read: {error.strerror or error}.") from error
    return Checkpoint(path, manifest["step"], manifest["about"])


def newest(output_dir: Path, say: Callable[[str], object]) -> Checkpoint | None:
    """The newest checkpoint that is whole.

    Args:
        output_dir: a run's folder.
        say: told of each newer one that is damaged, in a sentence.

    Raises:
        UserError: there are some, and all are damaged.
    """
    damaged = []
    for step in reversed(steps_in(output_dir)):
        try:
            checkpoint = read(path_of(output_dir, step))
        except DamagedError as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            say(f"damaged: {problem} Going on from {checkpoint.path.name}, the one before.")
        return checkpoint
    if damaged:
        raise UserError(
            f"every checkpoint in {output_dir} is damaged. {' '.join(damaged)} Restore one of them "
            "from a copy; or remove them, to start at the first step again."
        )
    return None


def load(
    checkpoint: Checkpoint, expected: Mapping[str, TensorInfo], without: str | None = None
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tensors of a checkpoint, one at a time.

    Args:
        checkpoint: from `read`.
        expected: what the run needs, by name.
        without: tensors whose names begin with it may be left over; None: none may.

    Raises:
        UserError: lists those that are missing, left over, or of another shape or dtype.
    """
    file = checkpoint.path / STATE
    there = safetensors_files.read_header(file)
    if without is not None:
        there = {name: info for name, info in there.items() if not name.startswith(without)}
    problems = _differences(there, expected)
    if problems:
        raise UserError(
            f"{checkpoint.path} is of another model or optimizer than this run: "
            f"{'; '.join(problems)}. Repeat the options of the run that wrote it, which are in "
            f"{checkpoint.path / 'config.yaml'}."
        )
    return safetensors_files.read_tensors(file, expected.keys())


def has_tensors(checkpoint: Checkpoint, prefix: str) -> bool:
    """Whether a checkpoint has tensors whose names begin with this."""
    there = safetensors_files.read_header(checkpoint.path / STATE)
    return any(name.startswith(prefix) for name in there)


def keep_newest(output_dir: Path, limit: int, newest: int) -> list[Path]:
    """Remove the oldest checkpoints until so many are left. Returns those removed.

    One that is half removed when the process is killed does not count as a checkpoint any more.

    Args:
        limit: at least 1.
        newest: the step of the one that was written last. Later ones do not count.
    """
    removed = []
    for step in [step for step in steps_in(output_dir) if step <= newest][:-limit]:
        path = path_of(output_dir, step)
        aside = path.with_name(f".{path.name}.removed")
        _remove(aside)
        os.rename(path, aside)
        _remove(aside)
        removed.append(path)
    return removed


def _remove(path: Path) -> None:
    if path.is_symlink():  # somebody has put it on another disk; what is there is theirs
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def set_aside(output_dir: Path, after: int) -> Iterator[tuple[Path, Path]]:
    """Give the checkpoints after a step, from which a run does not go on, names that are none of a
    checkpoint: they would count as the newest ones of the course that the run takes from there.

    Returns:
        The old and the new path of each.
    """
    for step in steps_in(output_dir):
        if step <= after:
            continue
        path = path_of(output_dir, step)
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.name}.set-aside-{number}")):
            number += 1
        os.rename(path, aside)
        yield path, aside


def remove_leftovers(output_dir: Path) -> None:
    """Delete what killed processes have left of checkpoints that were never finished, or were being
    removed. Only while no other process writes there."""
    for pattern in (".checkpoint-*.partial", ".checkpoint-*.removed"):
        for path in output_dir.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for path in output_dir.glob(".checkpoint-*.old"):  # see `atomic.folder`
        target = path.with_name(path.name[1:].removesuffix(".old"))
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.rename(path, target)


def info_of(parameter: Any) -> TensorInfo:
    """The format's description of a parameter or an array."""
    return TensorInfo(_format_name(parameter), tuple(parameter.shape))


_NAMES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip


def _format_name(tensor: Any) -> str:
    """For numpy's dtypes and MindSpore's, whose names differ in case."""
    return _NAMES[str(tensor.dtype).lower()]


def _differences(there: Mapping[str, TensorInfo], expected: Mapping[str, TensorInfo]) -> list[str]:
    def listed(what: str, names: Collection[str]) -> str:
        shown = ", ".join(sorted(names)[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{len(names)} of {len(expected)} tensors {what} ({shown}{more})"

    missing = expected.keys() - there.keys()
    extra = there.keys() - expected.keys()
    both = expected.keys() & there.keys()
    changed = [
        f"{name} is {there[name].dtype} {list(there[name].shape)}, not "
        f"{expected[name].dtype} {list(expected[name].shape)}"
        for name in sorted(both)
        if there[name] != expected[name]
    ]
    problems = [listed("are missing", missing)] if missing else []
    problems += [listed("are in it that this run has not", extra)] if extra else []
    problems += changed[:3] + ([f"{len(changed) - 3} more differ"] if len(changed) > 3 else [])
    return problems


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.is_dir():
        kind = UserError if step_of(path) is None else DamagedError
        raise kind(f"there is no checkpoint {path}: that is not a folder.")
    try:
        manifest = json.loads(file.read_bytes())
        digest = manifest.pop("sha256")
        if digest != _digest_of(manifest):
            raise ValueError("checksum")
    except FileNotFoundError:
        what = "is missing"
        if step_of(path) is None:
            raise UserError(f"{path} is no checkpoint: it has no {MANIFEST}.") from None
        raise DamagedError(f"{file} {what}.") from None
    except OSError as error:
        raise DamagedError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"{file} does not hold what was written.") from None
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{path} is of format {manifest['format']}, and this version of the launcher reads "
            f"format {FORMAT}. Go on with the version that wrote it, or a later one."
        )
    return dict(manifest)


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
