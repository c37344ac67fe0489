"""What a run computes in, found out without training: the forward pass is compiled, not run.

launcher precision --recipe flux_controlnet --config my_run.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hooks.types import Config, Dataset, Dist
from launcher import pipeline
from launcher.encoding import EncodingStage
from launcher.parts import trainable_parameters
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

    @property
    def groups(self) -> Any:
        groups = getattr(self._dataset, "groups", None)
        return None if groups is None else groups[: self._count]

    def __getattr__(self, name: str) -> Any:  # what else a recipe's own data set offers
        return getattr(self._dataset, name)


def look(plugins: Plugins, config: Config, console: Console) -> tuple[Report, list[str]]:
    """The precision of a run, and what is wrong with it.

    Raises:
        UserError: what is wrong with the configuration, the files it names, or the data set.
    """
    from launcher.training import device, weights
    from launcher.training.precision.graph import trace

    hook = plugins.hook
    refuse(pipeline.stage_problems(plugins, config) + hook.check_config(config=config))
    runtime = config.runtime
    device.set_up(runtime.device, runtime.device_id, "graph")
    dataset = hook.build_dataset(config=config, dist=Dist())
    batch_size = pipeline.new_schedule(config, dataset, Dist()).global_batch
    dataset = _First(dataset, batch_size)
    models = pipeline.prepare_networks(config, hook)
    stage = EncodingStage(plugins, config, models, dataset, console, in_memory=True)
    encoded = stage.run()
    report = encoded.report
    weights.load(models.cells().values())
    report.add(models.cells())
    optimizer = hook.build_optimizer(config=config, parameters=trainable_parameters(models))
    collate = stage.build_collate_fn(models, encoded)
    loss = hook.build_loss(config=config, models=models)
    batch = pipeline.new_schedule(config, dataset, Dist()).batch(0, collate)
    with console.busy("compiling the forward pass", "compiled the forward pass"):
        report.observe([trace(loss.set_train(), batch.micro_batches[0])])
    scaled = config.precision.loss_scaling
    return report, report.problems(loss_scaling=scaled, optimizer=optimizer)
