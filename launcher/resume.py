"""Continuing a run: from which checkpoint, and whether this run can go on from it.

launcher --resume latest --config my_run.yaml     # of train.output_dir; where there is none, begin
launcher --resume runs/first                      # with the run's own configuration
launcher --resume runs/first/checkpoint-500 train.output_dir=runs/second
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import Dist, Encodings, Models
from launcher.rundir import CONFIG, RunDir, expand
from launcher.training import checkpoint
from launcher.training.checkpoint import Checkpoint
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from launcher.config import OptionInfo

LATEST = "latest"
#: Distributions whose version is noted in a checkpoint.
_DISTRIBUTIONS = ("flux-controlnet-plugin", "mindspore", "mindone")


@dataclass(frozen=True)
class Origin:
    """Where a continued run begins.

    Attributes:
        folder: of the run that is continued.
        checkpoint: None: it has none yet, and begins at its first step.
        run_dir: the folder, taken, where the new steps go into the same one; else None.
    """

    folder: Path
    checkpoint: Checkpoint | None
    run_dir: RunDir | None

    @property
    def step(self) -> int:
        """Optimisation steps that are done."""
        return 0 if self.checkpoint is None else self.checkpoint.step

    @property
    def about(self) -> Mapping[str, Any]:
        """What the run noted in the checkpoint."""
        return {} if self.checkpoint is None else self.checkpoint.about

    @property
    def logs(self) -> Mapping[str, int]:
        """The sizes of the run's logs at that step."""
        return self.about.get("logs", {})


@dataclass(frozen=True)
class Change:
    """An option that has another value than in the run that is continued.

    Attributes:
        name: `train.learning_rate`.
        before, now: its values.
        effect: `free`, `content`, `continues` or `fixed`; see `launcher.training.options.option`.
    """

    name: str
    before: Any
    now: Any
    effect: str

    def __str__(self) -> str:
        from launcher.config import as_yaml

        return f"{self.name} was {as_yaml(self.before)} and is {as_yaml(self.now)}"


def with_its_configuration(
    resume: str, recipe: str | None, configs: Sequence[str], settings: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The configuration files and settings of a continued run: those of the run itself, where the
    command line names neither recipe nor file.

    Args:
        resume: the value of `--resume`.
        recipe, configs, settings: the rest of the command line.

    Raises:
        UserError: it is not known which run is meant.
    """
    if recipe or configs:
        return list(configs), list(settings)
    given = _output_dir(settings)
    if resume != LATEST:
        path = _folder(resume)
        run = path.parent if checkpoint.is_checkpoint(path) else path
    elif given is not None:
        path = run = expand(given)
    else:
        raise UserError(
            "--resume latest continues the run in train.output_dir, which is not given. Give it, "
            "or the files that say it (`--config`), or the run's folder: `--resume runs/first`."
        )
    if not (path / CONFIG).is_file():
        _require_no_checkpoint(path)
        raise UserError(
            f"there is no run in {path} to continue: it has no {CONFIG}. Give the folder of a run, "
            "or of one of its checkpoints; or `--recipe` or `--config`, to begin one."
        )
    _read_config(path)
    extra = [] if given is not None else [f"train.output_dir={run}"]
    return [str(path / CONFIG)], [*settings, *extra]


def find(resume: str, output_dir: str, say: Callable[[str], object]) -> Origin | None:
    """The run to continue and the checkpoint to go on from. Reads all of the checkpoint.

    Args:
        resume: the value of `--resume`.
        output_dir: where this run writes to.
        say: told what the user should know of the choice.

    Returns:
        None: there is no run yet (`latest`).

    Raises:
        UserError: there is no such checkpoint, or it is damaged; or the run is still going on.
    """
    here = expand(output_dir)
    if resume == LATEST:
        if not (here / CONFIG).is_file():
            _require_no_checkpoint(here)
            say(f"there is no run in {output_dir} yet: this is a new one")
            return None
        path = here
    else:
        path = _folder(resume)
    folder = path.parent if checkpoint.is_checkpoint(path) else path
    if not (folder / CONFIG).is_file():
        _require_no_checkpoint(folder)
        raise UserError(
            f"--resume {resume}: that is neither the folder of a run (it has no {CONFIG}) nor a "
            "checkpoint in one. Give one of them, or `latest`."
        )
    in_place = os.path.realpath(folder) == os.path.realpath(here)
    run_dir = RunDir.reopen(folder) if in_place else None  # before another process changes it
    if path != folder:
        try:
            chosen: Checkpoint | None = checkpoint.read(path)
        except checkpoint.DamagedError as error:
            raise UserError(
                f"{path} is damaged: {error} Give the run's folder, to go on from the newest "
                f"checkpoint that is whole: `--resume {path.parent}`."
            ) from error
    else:
        chosen = checkpoint.newest(folder, say)
    if chosen is None and not in_place:
        raise UserError(
            f"{folder} has no checkpoint to go on from. Leave out --resume, to begin anew in "
            f"{output_dir}."
        )
    if path != folder and in_place:
        assert chosen is not None
        later = [step for step in checkpoint.steps_in(folder) if step > chosen.step]
        if later:
            raise UserError(
                f"{folder} has checkpoints after {path.name} (of step "
                f"{', '.join(map(str, later))}), which would not be of the course that goes on "
                "from it. Give another train.output_dir to go on there, or remove them."
            )
    return Origin(folder, chosen, run_dir)


def changes(origin: Origin, config_text: str, options: Sequence[OptionInfo]) -> Iterator[Change]:
    """How the configuration differs from that of the run that is continued.

    Args:
        config_text: this run's, as in config.yaml.
        options: all there are now. One that the other run did not know had its default there.
    """
    import yaml

    before = flat(
        _read_config(origin.folder if origin.checkpoint is None else origin.checkpoint.path)
    )
    now = flat(yaml.safe_load(config_text))
    defaults = {f"{info.section}.{info.name}": info.default for info in options}
    effects = {f"{info.section}.{info.name}": info.resume for info in options}
    effects["plugins"] = "continues"
    for name in dict.fromkeys([*before, *now]):
        old, new = (values.get(name, defaults.get(name)) for values in (before, now))
        if old != new:
            yield Change(name, old, new, effects.get(name, "fixed"))


def refuse_fixed(origin: Origin, changed: Sequence[Change]) -> None:
    """Raise UserError if an option has changed that must not."""
    fixed = [str(change) for change in changed if change.effect == "fixed"]
    if fixed:
        raise UserError(
            f"the run in {origin.folder} cannot be continued like this: {'; '.join(fixed)}. "
            "Give the same values, or begin a new run in another train.output_dir. README.md, "
            "Options, has what may change."
        )


def news(origin: Origin, changed: Sequence[Change], about: Mapping[str, Any]) -> list[str]:
    """What is different and the run goes on with, in sentences without a full stop.

    Args:
        changed: from `changes`.
        about: what this run notes in its checkpoints.
    """
    said = [str(change) for change in changed if change.effect in ("content", "continues")]
    before, now = origin.about.get("world_size"), about["world_size"]
    if before not in (None, now):
        said.append(f"there were {before} processes and are {now}, for as many samples a step")
    for name, version in about["versions"].items():
        known = origin.about.get("versions", {}).get(name, version)
        if known != version:
            said.append(f"{name} was {known} and is {version}: results may differ in their bits")
    return said


def notes(recipe: str, seed: int, dist: Dist, global_batch: int) -> dict[str, Any]:
    """What every checkpoint of a run notes about it, before anything is loaded."""
    from launcher.provenance import installed_packages

    packages = installed_packages()
    return {
        "recipe": recipe,
        "seed": seed,
        "world_size": dist.world_size,
        "global_batch": global_batch,
        "versions": {name: packages.get(name, "") for name in _DISTRIBUTIONS},
    }


def of_data(samples: int, encodings: Encodings) -> dict[str, Any]:
    """The note that tells a data set from another: all that was encoded of it, by content."""
    data_keys = getattr(encodings, "data_keys", encodings.keys)()
    return {"samples": samples, "encodings": hashlib.sha256(data_keys.tobytes()).hexdigest()}


def of_networks(models: Models) -> dict[str, str]:
    """The note that tells an architecture from another: a digest of each part's parameters, by
    name and shape."""
    return {
        part: hashlib.sha256(
            repr(sorted((p.name, tuple(p.shape)) for p in cell.get_parameters())).encode()
        ).hexdigest()
        for part, cell in models.cells().items()
    }


def of_frozen(models: Models, memory: Path | None) -> dict[str, str]:
    """The note that tells a base model from another of its architecture: a digest of the weight
    files of each part that is not trained as a whole.

    Args:
        memory: the folder to remember digests of files in; None: they are not.
    """
    from launcher.training import digests, weights

    notes = {}
    for part, cell in models.cells().items():
        origin = weights.origin_of(cell)
        if origin is None or all(p.requires_grad for p in cell.get_parameters()):
            continue
        contents = b"".join(digests.of_files(memory, origin.files))
        notes[part] = hashlib.sha256(contents).hexdigest()
    return notes


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What makes a checkpoint another run's.

    Args:
        before: what it notes.
        now: what this run would note, as far as it is known yet.
    """
    both = before.keys() & now.keys()
    if "global_batch" in both and before["global_batch"] != now["global_batch"]:
        size = before["global_batch"]
        yield (
            f"the checkpoint is of a run with {size} samples a step, and this one has "
            f"{now['global_batch']}: its place in the data would be another. Choose "
            "train.train_batch_size and train.gradient_accumulation_steps so that, times the "
            f"number of processes, they make {size}."
        )
    if "data" in both and before["data"] != now["data"]:
        samples, samples_now = before["data"]["samples"], now["data"]["samples"]
        what = "with other images, captions or encoders"
        if samples != samples_now:
            what = f"of {samples} samples, and this one has {samples_now}"
        yield (
            f"the checkpoint is of a run on another data set: {what}. Give the one that it was "
            "trained on; or begin a new run, from the exported weights if need be."
        )
    if "frozen" in both and before["frozen"] != now["frozen"]:
        parts = _that_differ(before["frozen"], now["frozen"])
        yield (
            f"the checkpoint is of a run with another base model: {parts} had other "
            "weights, and what was trained fits those. Give the model that it was trained with; or "
            "begin a new run, from the exported weights if need be."
        )
    if "networks" in both and before["networks"] != now["networks"]:
        parts = _that_differ(before["networks"], now["networks"])
        yield (
            f"the checkpoint is of a run with another architecture: {parts} had "
            "parameters of other names or shapes. Give the models that it was trained with."
        )


def _that_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The parts whose notes are not the same, separated by commas."""
    return ", ".join(p for p in {**before, **now} if before.get(p) != now.get(p))


def _read_config(holder: Path) -> dict[str, Any]:
    """The configuration of a run or checkpoint.

    Raises:
        UserError: the file holds none.
    """
    import yaml

    file = holder / CONFIG
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}. {_COPIES}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no configuration. {_COPIES}")
    return content


def _require_no_checkpoint(folder: Path) -> None:
    """Raise UserError if a folder without configuration has checkpoints all the same."""
    if checkpoint.steps_in(folder):
        raise UserError(f"{folder} has checkpoints and no {CONFIG}. {_COPIES}")


_COPIES = f"Every checkpoint of a run has a copy of its {CONFIG}, which can be put in its place."


def _output_dir(settings: Sequence[str]) -> str | None:
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in ("output_dir", "train.output_dir"):
            return value
    return None


def _folder(resume: str) -> Path:
    try:
        path = expand(resume)
    except ValueError as error:
        raise UserError(f"--resume {resume!r}: {error}.") from error
    if not path.is_dir():
        raise UserError(
            f"--resume {resume}: there is no such folder. Give `latest`, the folder of a run, or "
            "of one of its checkpoints."
        )
    return path


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a configuration as `section.name`; `recipe` and `plugins` as they are."""
    options: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            options.update({f"{name}.{option}": given for option, given in value.items()})
        else:
            options[name] = value
    return options
