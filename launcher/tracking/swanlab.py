"""SwanLab (https://docs.swanlab.cn)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from launcher.tracking import FOLDERS, Occasion


class SwanLab:
    """The run there. Offline, `swanlab sync RUN/swanlog/run-*` sends it later."""

    def __init__(self, occasion: Occasion) -> None:
        swanlab: Any = import_module("swanlab")
        self._swanlab = swanlab
        folder = occasion.folder / FOLDERS["swanlab"]
        folder.mkdir(exist_ok=True)
        # Names that versions before 0.8 have too.
        swanlab.init(
            project=occasion.project,
            experiment_name=occasion.name,
            logdir=str(folder),
            config=dict(occasion.config),
            # Offline, 0.7.20 says that it cannot, and begins a run of another id.
            id=occasion.run_id,
            resume="allow",
            **({"mode": "offline"} if occasion.offline else {}),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `launcher.tracking.Tracker`."""
        self._swanlab.log(dict(figures), step=step)

    def images(self, step: int, images: Mapping[str, Path]) -> None:
        """See `launcher.tracking.Tracker`."""
        shown = {name: self._swanlab.Image(str(path)) for name, path in images.items()}
        self._swanlab.log(shown, step=step)

    def close(self, failed: bool) -> None:
        """See `launcher.tracking.Tracker`."""
        if failed:  # it warns where there is no reason
            self._swanlab.finish(state="crashed", error="the run ended before its last step")
        else:
            self._swanlab.finish()
