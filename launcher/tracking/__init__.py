"""Services that show a run while it goes on, beside the files that it writes.

`metrics.jsonl` has everything whatever a service does: one that fails is left out, and the run goes
on. A thread talks to each, see `launcher.tracking.background`: no step waits for a disk or a
network, and the run waits for a service only when it begins and when it ends, for so long at most.

Importing this module imports none of them.
"""

from __future__ import annotations

import importlib.util
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from launcher.interrupt import Interrupted, leaving
from launcher.tracking.background import Background
from launcher.training import atomic

#: The file in a run's folder.
ID = "tracking-id.txt"
#: SwanLab takes ids of no other length.
_LENGTH = 21
#: Seconds that the run waits for all services to begin. Clients give up after about 100 by
#: themselves.
OPENING = 180.0
#: Seconds that the run waits, at its end, for what they have not sent yet.
CLOSING = 60.0
#: What is imported for each service, and how it is installed.
PACKAGES: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "`pip install tensorboardX`"),
    "wandb": ("wandb", "`pip install wandb`"),
    # SwanLab declares that it needs protobuf < 7 and works with 7, which MindSpore 2.10 needs.
    "swanlab": (
        "swanlab",
        "`pip install swanlab`, and then `pip install --upgrade protobuf`, which the first takes "
        "to a version that MindSpore 2.10 cannot be imported with",
    ),
}
#: Where each keeps what it writes, in the run's folder.
FOLDERS: Mapping[str, str] = {"tensorboard": "tensorboard", "wandb": "wandb", "swanlab": "swanlog"}


@dataclass(frozen=True)
class Occasion:
    """What a service is told of the run when it begins, or goes on.

    Attributes:
        folder: of the run.
        project: what runs of a kind are kept under.
        name: of the run.
        run_id: the run is known by it; the same when it is continued.
        step: steps that are done; those after it may have been told of before.
        offline: keep everything on the disk, to be sent later.
        config: the configuration, as plain values.
    """

    folder: Path
    project: str
    name: str
    run_id: str
    step: int
    offline: bool
    config: Mapping[str, Any]


def run_id(folder: Path) -> str:
    """What the run in a folder is known by at the services. A run that goes on in another folder is
    another one there."""
    path = folder / ID
    identity = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not identity:
        identity = secrets.token_hex(_LENGTH)[:_LENGTH]
        atomic.write_text(path, f"{identity}\n")
    return identity


class Tracker(Protocol):
    """The run at one service."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures by name, such as `train/loss`, after so many steps. All are finite."""

    def images(self, step: int, images: Mapping[str, Path]) -> None:
        """Image files by name."""

    def close(self, failed: bool) -> None:
        """Nothing more comes."""


def not_installed(names: Iterable[str]) -> list[str]:
    """A sentence for each service whose package is missing."""
    return [
        f"tracking.report_to names {name}, and the package {PACKAGES[name][0]} is not installed. "
        f"Install it ({PACKAGES[name][1]}), or leave it out of tracking.report_to."
        for name in names
        if not _is_installed(PACKAGES[name][0])
    ]


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # Without origin: a folder of that name in the working directory, where wandb keeps its runs.
    return spec is not None and spec.origin is not None


def opener(name: str) -> Callable[[Occasion], Tracker]:
    """What opens the run at a service."""
    if name == "tensorboard":
        from launcher.tracking.tensorboard import TensorBoard

        return TensorBoard
    if name == "wandb":
        from launcher.tracking.weights_and_biases import WeightsAndBiases

        return WeightsAndBiases
    from launcher.tracking.swanlab import SwanLab

    return SwanLab


@contextmanager
def _nothing_to_type() -> Iterator[None]:
    """Let who asks for something on the terminal, such as a login, find that nobody answers.

    A thread that waits for an answer could not be ended: the interpreter aborts at its end where
    one is reading from standard input.
    """
    terminal = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = terminal


class Trackers:
    """The services of a run. To be used in a `with` block.

    Args:
        names: keys of `PACKAGES`.
        occasion: what they are told.
        say: shows the user a line.
        open_at: what opens the run at a service, by its name.
        opening, closing: seconds to wait for all of them, at the beginning and at the end.
    """

    def __init__(
        self,
        names: Iterable[str],
        occasion: Occasion,
        say: Callable[[str], object],
        open_at: Callable[[str], Callable[[Occasion], Tracker]] = opener,
        *,
        opening: float = OPENING,
        closing: float = CLOSING,
    ) -> None:
        self._names = list(names)
        self._occasion = occasion
        self._say = say
        self._open_at = open_at
        self._opening = opening
        self._closing = closing
        self._open: dict[str, Background] = {}

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        """Tell all services.

        Args:
            step: steps that are done.
            figures: numbers by name. Those that are not finite are left out, which the services
                draw as they like or refuse; `metrics.jsonl` has null.
        """
        finite = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
        self._tell(lambda tracker: tracker.log(step, finite))

    def images(self, step: int, images: Mapping[str, Path]) -> None:
        """Show images at all services.

        Args:
            step: steps that are done.
            images: files by name. They are read a little later.
        """
        files = dict(images)
        self._tell(lambda tracker: tracker.images(step, files))

    def __enter__(self) -> Trackers:
        with _nothing_to_type() if self._names else nullcontext():
            for name in self._names:
                self._open[name] = Background(name, partial(self._begin, name))
            self._wait(Background.wait_made, self._opening)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tell(lambda tracker: tracker.close(failed=kind is not None))
        for service in self._open.values():
            service.end()
        # The run is saved: who presses Ctrl-C once more wants no more than to get away.
        saved = error.saved if isinstance(error, Interrupted) else ""
        way_out: AbstractContextManager[None] = leaving(saved) if saved else nullcontext()
        with way_out:
            self._wait(Background.wait_over, self._closing)
        self._open.clear()

    def _begin(self, name: str) -> Tracker:
        return self._open_at(name)(self._occasion)

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name in list(self._open):
            self._try(name, lambda service: service.call(call))

    def _wait(self, wait: Callable[[Background, float], None], seconds: float) -> None:
        until = time.monotonic() + seconds
        for name in list(self._open):
            self._try(name, lambda service: wait(service, until - time.monotonic()))

    def _try(self, name: str, action: Callable[[Background], None]) -> None:
        try:
            action(self._open[name])
        except Exception as error:
            # Whatever another's service raises is not worth a run.
            del self._open[name]
            self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        self._say(
            f"warning: {name} failed and is left out from here on ({type(error).__name__}: "
            f"{reason}). Training goes on; metrics.jsonl has everything"
        )
