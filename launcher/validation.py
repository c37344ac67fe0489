"""Looking at what is being trained, while it is: when, and where the results go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import Config, Dataset, TrainState, Validation
from launcher.console import Console
from launcher.mending import Mender
from launcher.rundir import RunDir
from launcher.tracking import Trackers
from launcher.training import device_memory
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from launcher.plugins import Plugins

#: In a run's folder: what validations have left.
FOLDER = "validation"

_SMALLER = (
    "Validate on fewer or smaller images, or not at all; what a recipe looks at has options of its "
    "own: `launcher config` with the same arguments lists them."
)


def problems(config: Config, plugins: Plugins) -> list[str]:
    """Why the run cannot be validated as asked for; empty if it can."""
    if config.validation.is_wanted and plugins.leaves_to_launcher("validate"):
        return [
            f"the section validation asks for validations, but the recipe {plugins.recipe} has "
            "none: neither it nor a variant answers the hook validate."
        ]
    return []


def trained_samples(config: Config, samples: int) -> int:
    """How many of the samples are trained on: all but the last `validation.heldout_samples`.

    Raises:
        UserError: none is left.
    """
    held_out: int = config.validation.heldout_samples
    if held_out >= samples:
        raise UserError(
            f"validation.heldout_samples is {held_out}, and the data set has {samples} samples: "
            "none is left to train on. Hold out fewer."
        )
    return samples - held_out


def held_out_note(config: Config) -> str:
    """`, of which 8 are held out`, behind the number of samples; empty if none is."""
    count = config.validation.heldout_samples
    return f", of which {count} are held out" if count else ""


def held_out(config: Config, dataset: Dataset) -> range:
    """The numbers of the samples that are not trained on."""
    return range(trained_samples(config, len(dataset)), len(dataset))


def forget_images(run: Path, step: int) -> None:
    """Remove the images that were made after a step which a run goes back to."""
    for path in _images_after(run, step):
        shutil.rmtree(path)


def copy_images(source: Path, target: Path, step: int) -> None:
    """Begin with the images of another run, up to a step."""
    later = set(_images_after(source, step))
    for path in sorted(set(_images_after(source, -1)) - later):
        shutil.copytree(path, target / FOLDER / path.name, dirs_exist_ok=True)


def _images_after(run: Path, step: int) -> Iterator[Path]:
    """Folders `validation/step-000100` of later steps."""
    for path in (run / FOLDER).glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and int(number) > step:
            yield path


class Validator:
    """Calls the hook `validate` when it is due, and passes on what it finds.

    Args:
        config: the resolved configuration.
        hook: calls the hooks.
        prepared: what `build_validation` returned.
        run_dir: has the log of the figures.
        trackers: are told of them.
        console: shows them.
        mender: has damaged encodings made anew.
    """

    def __init__(
        self,
        config: Config,
        hook: Any,
        prepared: Any,
        run_dir: RunDir,
        trackers: Trackers,
        console: Console,
        mender: Mender,
    ) -> None:
        self._section = config.validation
        self._config = config
        self._hook = hook
        self._prepared = prepared
        self._run_dir = run_dir
        self._trackers = trackers
        self._console = console
        self._mender = mender

    def compile(self) -> None:
        """Compile what the recipe has prepared, if it can be."""
        if hasattr(self._prepared, "compile"):
            with self._console.compiling("the validation", "before the first step only"):
                self._with_mended(self._prepared.compile)

    def is_due(self, step: int, total: int) -> bool:
        """Whether to look when so many steps are done, of so many."""
        section = self._section
        if step == 0:
            return bool(section.at_start)
        if step == total and section.at_end:
            return True
        return section.validation_steps is not None and step % section.validation_steps == 0

    def run(self, state: TrainState) -> None:
        """Look now.

        Raises:
            UserError: what the recipe says is wrong.
        """
        found: Validation = self._with_mended(
            lambda: self._hook.validate(
                config=self._config, models=state.models, state=state, prepared=self._prepared
            )
        )
        if found.figures:
            self._run_dir.write_figures(state.step, found.figures)
            figures = {f"validation/{name}": value for name, value in found.figures.items()}
            self._trackers.log(state.step, figures)
        if found.images:
            self._trackers.images(state.step, found.images)
        summary = found.summary or ", ".join(f"{k} {v:.4g}" for k, v in found.figures.items())
        self._console.headline(f"validation after step {state.step}: {summary}")

    def _with_mended(self, look: Callable[[], Any]) -> Any:
        """The result of a function; an encoding that it finds damaged is made anew."""
        from launcher.training.cache import DamagedEntryError

        while True:
            try:
                with device_memory.needed_for("a validation", _SMALLER):
                    return look()
            except DamagedEntryError as error:
                self._mender(error)
