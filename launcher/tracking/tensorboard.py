"""TensorBoard: event files in the run's folder, by tensorboardX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher.tracking import FOLDERS, Occasion

#: Seconds; what a killed run loses here. A thread of tensorboardX writes.
_FLUSHED_EVERY = 5


class TensorBoard:
    """The files that `tensorboard --logdir RUN` shows."""

    def __init__(self, occasion: Occasion) -> None:
        from tensorboardX import SummaryWriter

        folder = occasion.folder / FOLDERS["tensorboard"]
        parts = len(list(folder.glob("events.*")))
        # Steps from `purge_step` on were told of by a part of the run that was lost: also the
        # first ones, and the validation before them, where there was no checkpoint yet.
        purged = occasion.step + 1 if occasion.step else 0
        self._writer = SummaryWriter(
            str(folder),
            purge_step=purged if parts else None,
            flush_secs=_FLUSHED_EVERY,
            # Names tell parts of a run apart by the second in which they began.
            filename_suffix=f".part-{parts + 1}" if parts else "",
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `launcher.tracking.Tracker`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, Path]) -> None:
        """See `launcher.tracking.Tracker`."""
        import numpy as np
        from PIL import Image

        for name, path in images.items():
            with Image.open(path) as image:
                self._writer.add_image(name, np.asarray(image.convert("RGB")), step, None, "HWC")

    def close(self, failed: bool) -> None:
        """See `launcher.tracking.Tracker`."""
        self._writer.close()
