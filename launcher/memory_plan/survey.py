"""The models of a run, built through its hooks without weights, as lists of parameters."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.types import Config, Dist, MemoryEstimate, Models
from launcher.config import list_options
from launcher.memory_plan.accounting import BYTES, STATE, Weight
from launcher.sections import SECTIONS
from launcher.training import sizes_only
from launcher.training.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.config import OptionInfo
    from launcher.plugins import Plugins

POLICIES = Path(__file__).parents[1] / "configs" / "precision"


@dataclass(frozen=True)
class Seen:
    """What a configuration comes to.

    Attributes:
        encoders: parameters of the `precompute` stage.
        networks: parameters of the `train` stage.
        estimate: what the recipe says of activations and encodings.
    """

    encoders: list[Weight]
    networks: list[Weight]
    estimate: MemoryEstimate


class Survey:
    """The models of a run, whose precision can be set again and again.

    Args:
        plugins: the recipe and its variants.
        config: the resolved configuration.

    Attributes:
        notes: where sizes come from, and what could not be looked at.
        dataset: the samples; None: not given, or it cannot be opened here.
    """

    def __init__(self, plugins: Plugins, config: Config) -> None:
        from launcher.training import device
        from launcher.training.freeze import freeze

        device.set_up("CPU", 0, "graph")  # whatever the run's: nothing is computed
        self.plugins = plugins
        hook = plugins.hook
        with sizes_only.wanted() as self.notes, _offline():
            self.encoders: Models = hook.build_models(config=config, stage="precompute")
            freeze(self.encoders.cells().values())
            networks = hook.build_models(config=config, stage="train")
            self.networks: Models = hook.configure_trainable(config=config, models=networks)
            del networks
            self.dataset = self._open_dataset(config)

    def _open_dataset(self, config: Config) -> Any:
        if any(
            info.is_asked and not info.is_required and _is_placeholder(config, info)
            for info in list_options(self.plugins.sections(SECTIONS))
        ):
            return None
        try:
            return self.plugins.hook.build_dataset(config=config, dist=Dist())
        except UserError as error:
            if sizes_only.NOT_GIVEN not in str(error):
                self.notes.append(f"the data set is not counted: {error}")
            return None

    def look(self, config: Config) -> Seen:
        """Cast the models as a configuration says, and list their parameters."""
        hook = self.plugins.hook
        with sizes_only.wanted():
            encoders = hook.apply_precision(config=config, models=self.encoders)
            networks = hook.apply_precision(config=config, models=self.networks)
            estimate = hook.estimate_memory(
                config=config, models=encoders, networks=networks, samples=self.dataset
            )
        return Seen(weights(encoders), weights(networks), estimate)

    def state(self, config: Config) -> Callable[[Weight], float]:
        """Bytes of the optimizer's state for a trained parameter."""
        if self.plugins.leaves_to_launcher("build_optimizer"):
            return STATE[config.optimizer.name]
        return _Measured(self.plugins.hook, config)


def _is_placeholder(config: Config, info: OptionInfo) -> bool:
    return bool(getattr(config[info.section], info.name) == sizes_only.NOT_GIVEN)


def weights(models: Models) -> list[Weight]:
    """The parameters of cells, each once, with what they compute in as far as that was asked for
    (`launcher.training.precision`)."""
    found: dict[int, Weight] = {}
    for part, cell in models.cells().items():
        computes_in = _computation(cell)
        for name, parameter in cell.parameters_and_names():
            path = name
            while path and path not in computes_in:
                path = path.rpartition(".")[0]
            found.setdefault(
                id(parameter),
                Weight(
                    part,
                    tuple(parameter.shape),
                    str(parameter.dtype).lower(),
                    bool(parameter.requires_grad),
                    computes_in.get(path),
                ),
            )
    return list(found.values())


def _computation(cell: Any) -> dict[str, str]:
    """What cells in a part were asked to compute in, by their paths; the part itself is ""."""
    from launcher.training.precision.cast import asked

    notes = ((path, asked(sub)) for path, sub in cell.cells_and_names())
    return {path: note.computation for path, note in notes if note is not None}


class _Measured:
    """The state of an optimizer that is not the launcher's: one is made for a small parameter of
    each kind, and its state weighed."""

    def __init__(self, hook: Any, config: Config) -> None:
        self._hook = hook
        self._config = config
        self._per_element: dict[tuple[int, str], float] = {}

    def __call__(self, weight: Weight) -> float:
        kind = (len(weight.shape), weight.dtype)
        if kind not in self._per_element:
            self._per_element[kind] = self._weigh(*kind)
        return self._per_element[kind] * weight.size

    def _weigh(self, dimensions: int, dtype: str) -> float:
        import mindspore as ms
        import numpy as np

        shape = {0: (), 1: (4096,), 2: (256, 256)}.get(
            dimensions, (16, 16) + (3,) * (dimensions - 2)
        )
        value = ms.Tensor(np.ones(shape, np.float32)).astype(getattr(ms, dtype))
        parameter = ms.Parameter(value, name="stand_in.weight")
        optimizer = self._hook.build_optimizer(config=self._config, parameters=[parameter])
        state = sum(
            int(np.prod(p.shape)) * BYTES.get(str(p.dtype).lower(), 4)
            for p in optimizer.get_parameters()
            if p is not parameter and p.ndim > 0 and p.size > 1
        )
        return state / max(1, parameter.size)


@contextmanager
def _offline() -> Iterator[None]:
    """Nothing is downloaded: a plan is for those who have nothing yet."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def policies(config: Config) -> Mapping[str, Config]:
    """The configuration with the launcher's precision policies, by their letters.

    fp16 stays fp16, and no mixed precision becomes what the policy says.
    """
    from launcher.config import read_yaml

    found = {}
    for file in sorted(POLICIES.glob("policy_*.yaml")):
        values = {
            name: given.text
            for (section, name), given in read_yaml(file).values.items()
            if section == "precision"
        }
        if config.precision.mixed_precision != "no":
            del values["mixed_precision"]
        section = dataclasses.replace(config.precision, **values)
        found[file.stem[-1].upper()] = Config({**config, "precision": section})
    return found
