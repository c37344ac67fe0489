"""Hook implementations that every recipe gets unless it brings its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hooks.types import (
        Batch,
        Cache,
        Config,
        DataReport,
        Dataset,
        Encodings,
        Inspection,
        MemoryEstimate,
        ModelDescription,
        Models,
        StepOutput,
        TrainState,
        Validation,
    )


class NumberOfSamples:
    """All that is known of a data set whose recipe does not look at it."""

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def as_json(self) -> Mapping[str, int]:
        """`samples`."""
        return {"samples": self._samples}

    def text(self) -> str:
        """One line."""
        return f"samples  {self._samples:,} (the recipe tells no more: it has no `inspect_data`)"

    def problems(self) -> list[str]:
        """None, or the data set would not have been built."""
        return []


@hookimpl
def inspect_data(inspection: Inspection) -> DataReport:
    """The number of samples."""
    return NumberOfSamples(len(inspection.build_dataset()))


@hookimpl
def prepare_data(dataset: Dataset) -> Dataset:
    """Nothing to make."""
    return dataset


@hookimpl
def apply_precision(config: Config, models: Models) -> Models:
    """Trained parts in `precision.trainable_params`, all others as they compute."""
    from launcher.training import precision

    p = config.precision
    policy = precision.Policy.of(
        p.mixed_precision, p.text_encoders, p.trainable_params, p.attention
    )
    return precision.apply(models, policy)


@hookimpl
def plan_encodings() -> Encodings:
    """Nothing to encode."""
    from launcher.training.encodings import NoEncodings

    return NoEncodings()


@hookimpl
def precompute(cache: Cache) -> Cache:
    """Nothing to encode."""
    return cache


@hookimpl
def estimate_memory() -> MemoryEstimate:
    """Unknown."""
    from hooks.types import MemoryEstimate

    return MemoryEstimate()


@hookimpl
def build_optimizer(config: Config, parameters: list[Any]) -> Any:
    """The optimizer that `optimizer.name` names."""
    from launcher.training.optim import build_optimizer as build

    section = config.optimizer
    return build(
        section.name,
        parameters,
        beta1=section.adam_beta1,
        beta2=section.adam_beta2,
        eps=section.adam_epsilon,
        weight_decay=section.adam_weight_decay,
        came_beta3=section.came_beta3,
        muon_momentum=section.muon_momentum,
        stochastic_rounding=section.stochastic_rounding,
        seed=config.train.seed,
    )


@hookimpl
def train_step(state: TrainState, batch: Batch) -> StepOutput:
    """The compiled step."""
    return state.compiled_step(batch, state.learning_rate)


@hookimpl
def build_validation() -> tuple[()]:
    """Nothing to prepare."""
    return ()


@hookimpl
def validate() -> Validation:
    """Nothing to look at."""
    from hooks.types import Validation

    return Validation()


@hookimpl
def describe_model() -> ModelDescription:
    """That it is a model."""
    from hooks.types import ModelDescription

    return ModelDescription("A model trained with MindSpore.")


@hookimpl
def sample() -> tuple[()]:
    """No images."""
    return ()
