"""What a run computes in, found out without training: the forward pass is compiled, not run.

launcher precision --recipe flux_controlnet --config my_run.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hooks.types import Config, Dataset, Dist
from launcher import pipeline
from launcher.schedule import Schedule
from launcher.training.errors import refuse

if TYPE_CHECKING:
    from launcher.console import Console
    from launcher.plugins import Plugins
    from launcher.training.precision.report import Report


class _First:
    """The first samples of a data set."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self._dataset = dataset
        self._count = min(count, len(dataset))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __getattr__(self, name: str) -> Any:  # what else a recipe's own data set offers
        return getattr(self._dataset, name)


def look(plugins: Plugins, config: Config, console: Console) -> tuple[Report, list[str]]:
    """The precision of a run, and what is wrong with it.

    Raises:
        UserError: what is wrong with the configuration, the files it names, or the data set.
    """
    from launcher.training import device
    from launcher.training.precision.graph import trace

    hook, dist = plugins.hook, Dist()
    refuse(hook.check_config(config=config))
    runtime = config.runtime
    device.set_up(runtime.device, runtime.device_id, "graph")
    dataset = hook.build_dataset(config=config, dist=dist)
    dataset = _First(dataset, Schedule(config.train, len(dataset), dist).global_batch)
    cache, report = pipeline.precompute(config, hook, dataset, console)
    models = pipeline.prepare_models(config, hook, "train")
    report.add(models.cells())
    parameters = pipeline.trainable_parameters(models)
    optimizer = hook.build_optimizer(config=config, parameters=parameters)
    collate = hook.build_collate_fn(config=config, models=models, dataset=dataset, cache=cache)
    loss = hook.build_loss(config=config, models=models)
    batch = Schedule(config.train, len(dataset), dist).batch(0, collate)
    with console.busy("compiling the forward pass", "compiled the forward pass"):
        report.observe([trace(loss.set_train(), batch.micro_batches[0])])
    scaled = config.precision.loss_scaling
    return report, report.problems(loss_scaling=scaled, optimizer=optimizer)
