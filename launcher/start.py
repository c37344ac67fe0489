"""Where a run begins: at its first step in a folder of its own, or where another one stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import Dist
from launcher import resume, validation
from launcher.checkpointing import Contents
from launcher.config import list_options
from launcher.logs import METRICS, RESUMES, count_lines
from launcher.plugin_checks import display_path
from launcher.provenance import now
from launcher.resume import Change, Origin
from launcher.rundir import CONFIG, RunDir, has_weights
from launcher.sections import SECTIONS
from launcher.training import atomic, checkpoint
from launcher.training.errors import UserError, refuse

if TYPE_CHECKING:
    from launcher.console import Console
    from launcher.plugins import Plugins

#: Written last: the files that the run has exported, and after which step.
EXPORTED = "exported.json"
_NEW_CONFIG = ".config.yaml.new"


class Start:
    """Where a run begins.

    Args:
        output_dir: where it writes to.
        config_text: its configuration, as in config.yaml.
        origin: the run that it continues; None: it is a new one.
        changed: what is different from that run.

    Attributes:
        about: what the run notes in its checkpoints.
    """

    def __init__(
        self,
        output_dir: str,
        config_text: str,
        console: Console,
        origin: Origin | None = None,
        changed: Sequence[Change] = (),
    ) -> None:
        self._output_dir = output_dir
        self._config_text = config_text
        self._console = console
        self._origin = origin
        self._changed = changed
        self.about: dict[str, Any] = {}

    @classmethod
    def of(
        cls,
        plugins: Plugins,
        output_dir: str,
        config_text: str,
        asked: str | None,
        console: Console,
    ) -> Start:
        """What `--resume` asks for.

        Args:
            asked: `latest`, or the folder of a run or checkpoint; None: a new run.

        Raises:
            UserError: it is not there, damaged, still going on, or of another configuration.
        """
        origin = None
        if asked is not None:
            with console.busy("reading the checkpoint", "read the checkpoint"):
                origin = resume.find(asked, output_dir, console.headline)
        if origin is None:
            return cls(output_dir, config_text, console)
        options = list_options(plugins.sections(SECTIONS))
        changed = list(resume.changes(origin, config_text, options))
        resume.refuse_fixed(origin, changed)
        return cls(output_dir, config_text, console, origin, changed)

    @property
    def is_in_place(self) -> bool:
        """Whether a run is continued in its own folder."""
        return self._origin is not None and self._origin.run_dir is not None

    @property
    def step(self) -> int:
        """Optimisation steps that are done."""
        return 0 if self._origin is None else self._origin.step

    @property
    def owes_validation(self) -> bool:
        """Whether the run ended before a validation that was due."""
        return self._origin is not None and bool(self._origin.about.get("owes_validation"))

    @property
    def memory(self) -> dict[str, Any]:
        """What plugins wanted to find again."""
        return {} if self._origin is None else dict(self._origin.about.get("memory", {}))

    def note(self, **about: Any) -> None:
        """Note something about the run.

        Raises:
            UserError: it is not so of the run that is to be continued.
        """
        self.about |= about
        if self._origin is not None:
            refuse(list(resume.differences(self._origin.about, about)))

    def is_over(self, total_steps: int) -> bool:
        """Whether there is nothing left to do, which is then said.

        Raises:
            UserError: more steps are done than the run has; or it is complete, and has no
                checkpoint that more steps could go on from.
        """
        if self._origin is None:
            return False
        if self.step > total_steps:
            raise UserError(
                f"{self._origin.folder} has done {self.step} steps, and this run is to have "
                f"{total_steps}. Give a larger train.max_train_steps, or an earlier checkpoint and "
                "another train.output_dir."
            )
        folder = self._origin.folder
        exported = read_exported(folder) if self.is_in_place else None
        if exported is None:
            if self.is_in_place and self._origin.checkpoint is None and has_weights(folder):
                raise UserError(
                    f"{folder} holds weights that were exported and no checkpoint: the run would "
                    "begin anew, and replace them. Give another train.output_dir, or move the "
                    "weights away."
                )
            return False
        if exported["step"] != total_steps:
            if self._origin.checkpoint is None:
                raise UserError(
                    f"the run in {self._origin.folder} is complete, of {exported['step']} steps, "
                    "and has no checkpoint: it would begin anew, and what it has made be lost. "
                    "Give another train.output_dir."
                )
            return False
        self._console.headline(
            f"the run in {display_path(self._origin.folder)} is complete: {total_steps} steps. A "
            f"larger train.max_train_steps goes on from step {self.step}"
        )
        for file in exported["files"]:
            self._console.result(str(self._origin.folder / file))
        return True

    def open(self, dist: Dist) -> RunDir:
        """Take the run's folder."""
        if self._origin is not None and self._origin.run_dir is not None:
            return self._origin.run_dir
        return RunDir.claim(self._output_dir, self._config_text, is_main=dist.is_main)

    @contextmanager
    def config_file(self, run_dir: RunDir) -> Iterator[Path]:
        """A file of this run's configuration, for processes that work for it."""
        if not self.is_in_place:
            yield run_dir.path / CONFIG
            return
        # The run's own is replaced when it is clear that the run can be continued.
        path = run_dir.path / _NEW_CONFIG
        atomic.write_text(path, self._config_text)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def go_on(self, contents: Contents, run_dir: RunDir, provenance: Mapping[str, Any]) -> None:
        """Bring the run to where the other one stopped; for a new run, nothing is done. From here
        on the folder is changed.

        Raises:
            UserError: the checkpoint has other tensors than the run.
        """
        origin = self._origin
        if origin is None:
            return
        say = self._console.headline
        for sentence in resume.news(origin, self._changed, self.about):
            say(f"different from before: {sentence}")
        name = "its beginning"
        if origin.checkpoint is None:
            if lines := count_lines(origin.folder / METRICS):
                say(f"there is no checkpoint yet: {lines} recorded steps are done again")
        else:
            name = origin.checkpoint.path.name
            count = contents.read(origin.checkpoint)
            say(f"loaded {count} of {count} tensors of {display_path(origin.checkpoint.path)}")
        if self.is_in_place:
            checkpoint.remove_leftovers(run_dir.path)
            for path, aside in checkpoint.set_aside(run_dir.path, origin.step):
                say(f"{path.name}, from which the run does not go on, is now {aside.name}")
            for sentence in run_dir.logs.go_back(origin.logs, origin.step):
                say(f"warning: {sentence}")
            validation.forget_images(run_dir.path, origin.step)
            run_dir.write_config(self._config_text)
            (run_dir.path / EXPORTED).unlink(missing_ok=True)
            run_dir.write_provenance(**provenance)
        else:
            for sentence in run_dir.logs.copy(origin.folder, origin.logs, origin.step):
                say(f"warning: {sentence}")
            validation.copy_images(origin.folder, run_dir.path, origin.step)
            name = str(origin.folder / name)
        run_dir.append(
            RESUMES,
            {
                "time": now(),
                "step": origin.step,
                "checkpoint": name,
                "changed": {change.name: [change.before, change.now] for change in self._changed},
            },
        )


def read_exported(folder: Path) -> dict[str, Any] | None:
    """The content of `exported.json`; None: the run has not come to its end.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / EXPORTED
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
        if not isinstance(content["step"], int) or not isinstance(content["files"], list):
            raise TypeError("step or files")
        return content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} does not say what the run has exported: it is damaged. Restore it from a "
            "copy; or remove it, and let --resume export again from the newest checkpoint."
        ) from error
