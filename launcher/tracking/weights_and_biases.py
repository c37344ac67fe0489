"""Weights & Biases (https://docs.wandb.ai)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from launcher.tracking import Occasion


class WeightsAndBiases:
    """The run there. Offline, `wandb sync RUN/wandb/offline-*` sends it later."""

    def __init__(self, occasion: Occasion) -> None:
        wandb: Any = import_module("wandb")
        self._wandb = wandb
        # It ignores steps that it has been told of, which a continued run does again.
        self._run = wandb.init(
            project=occasion.project,
            name=occasion.name,
            id=occasion.run_id,
            resume="allow",
            dir=str(occasion.folder),
            config=dict(occasion.config),
            allow_val_change=True,
            **({"mode": "offline"} if occasion.offline else {}),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `launcher.tracking.Tracker`."""
        self._run.log(dict(figures), step=step)

    def images(self, step: int, images: Mapping[str, Path]) -> None:
        """See `launcher.tracking.Tracker`."""
        shown = {name: self._wandb.Image(str(path)) for name, path in images.items()}
        self._run.log(shown, step=step)

    def close(self, failed: bool) -> None:
        """See `launcher.tracking.Tracker`."""
        self._run.finish(exit_code=int(failed))
