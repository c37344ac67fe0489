"""Another launcher, in a page: drives a recipe with pluggy, `hooks` and `launcher.training` alone.

GLOG_v=3 python examples/own_launcher.py RECIPE CONFIG.yaml OUTPUT_DIR STEPS    (3: errors only)
"""

import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pluggy
import yaml

from hooks import PROJECT_NAME, hookimpl, specs
from hooks.types import Batch, Config, Dist, StepOutput, TrainState
from launcher.training import device, errors, freeze, precision, weights
from launcher.training.cache import MemoryCache
from launcher.training.encodings import NoEncodings
from launcher.training.optim import AdamW
from launcher.training.random import StepDraws
from launcher.training.sampler import Sampler
from launcher.training.step import TrainStep

SEED, RATE, BATCH_SIZE = 0, 1e-3, 2
PRECISION = dict(mixed_precision="no", text_encoders="fp32", trainable_params="fp32")


class Defaults:  # what a recipe may leave to the launcher
    prepare_data = hookimpl(lambda self, dataset: dataset)
    apply_precision = hookimpl(lambda self, models: precision.apply(models, precision.Policy.of()))
    plan_encodings = hookimpl(lambda self: NoEncodings())
    precompute = hookimpl(lambda self, cache: cache)
    build_optimizer = hookimpl(lambda self, parameters: AdamW(parameters))
    train_step = hookimpl(lambda self, state, batch: state.compiled_step(batch, RATE))


def run(recipe: str, file: str, output_dir: Path, steps: int) -> list[float]:
    """Train and export; returns the losses."""
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(specs)
    manager.register(Defaults())  # pluggy asks the last one registered first
    manager.register(entry_points(group="launcher.recipes")[recipe].load())
    hook, given = manager.hook, yaml.safe_load(Path(file).read_text())
    classes = {name: cls for part in hook.config_sections() for name, cls in part.items()}
    sections = {name: cls(**given.get(name, {})) for name, cls in classes.items()}
    sections["train"] = SimpleNamespace(seed=SEED, output_dir=str(output_dir))
    sections["precision"] = SimpleNamespace(**PRECISION, attention="auto")
    sections["checkpoint"] = SimpleNamespace(save_weight_dtype=None)
    config = Config(sections)
    errors.refuse([problem for found in hook.check_config(config=config) for problem in found])
    dataset = hook.build_dataset(config=config, dist=Dist())
    device.set_up("auto", 0, "graph")
    output_dir.mkdir(parents=True)
    dataset = hook.prepare_data(config=config, dataset=dataset, say=print)
    encoders = hook.build_models(config=config, stage="precompute")
    freeze.freeze(encoders.cells().values())
    encoders = hook.apply_precision(config=config, models=encoders)
    models = hook.build_models(config=config, stage="train")
    models = hook.configure_trainable(config=config, models=models)
    models = hook.apply_precision(config=config, models=models)
    common = dict(config=config, dataset=dataset)
    plan = hook.plan_encodings(models=encoders, networks=models, **common)
    weights.load([*encoders.cells().values(), *models.cells().values()])
    cache = hook.precompute(models=encoders, encodings=plan, cache=MemoryCache(), **common)
    collate = hook.build_collate_fn(models=models, encodings=plan, cache=cache, **common)
    loss = hook.build_loss(config=config, models=models)
    optimizer = hook.build_optimizer(config=config, parameters=models.trainable_parameters())
    step = TrainStep(loss, optimizer, max_grad_norm=1.0)
    update = lambda batch, rate: StepOutput(*step(batch.micro_batches, rate)[:2])  # noqa: E731
    state = TrainState(config, models, loss, optimizer, update, steps, output_dir, Dist())
    sampler, losses = Sampler(len(dataset), BATCH_SIZE, 1, SEED), []
    hook.on_train_start(state=state)
    while state.step < steps:
        draws = StepDraws(SEED, state.step, sampler.slots(0))
        batch = Batch([collate(sampler.indices(state.step, 0), draws)], BATCH_SIZE)
        output = hook.train_step(state=state, batch=batch)
        losses, state.step = [*losses, output.loss], state.step + 1
        hook.on_step_end(state=state, output=output)
    hook.export_weights(config=config, models=models, directory=output_dir, values=None)
    hook.on_train_end(state=state)
    return losses


if __name__ == "__main__":
    print(run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
