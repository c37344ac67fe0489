"""Every hook of a training run, in call order. This file is the plugin API.

A hook has one of three kinds:

* **owned**: exactly one plugin answers. The defaults come first, then the recipe, then the
  variants; the last of them that implements the hook owns it and is the only one called. It
  must return a value: None is an error that names the function. Two variants that own the
  same hook are an error too.
* **merged**: every plugin answers and the answers are combined.
* **observed**: every plugin is told; return values are ignored.

An implementation takes any of the arguments below, by name, and no others. A variant that
wants the recipe's own answer calls it: hook implementations are plain module functions.

    import flux_controlnet_plugin.recipe as base
    from hooks import hookimpl

    @hookimpl
    def apply_precision(config, models):
        models = base.apply_precision(config, models)
        ...
        return models

`@hookimpl(wrapper=True)` wraps any hook whoever owns it (timing, guards); see pluggy.

A launcher, whichever it is, calls the hooks in the order of this file. It brings three sections
of the configuration: `train` (with `output_dir` and `seed`), `precision` (with the arguments of
`launcher.training.precision.Policy.of`) and `checkpoint` (with `save_weight_dtype`: fp32, fp16,
bf16 or None); and `validation` if it calls `validate`. It answers the hooks whose documentation
names a default.
Before `prepare_data` it has chosen the device (`launcher.training.device.set_up`); in the
`precompute` stage it freezes what `build_models` returned; and it has the weights read
(`launcher.training.weights.load`) of what it is about to run, after `apply_precision`.
`examples/own_launcher.py` is one such, of a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import hookspec
from .types import (
    Batch,
    Cache,
    CollateFn,
    Config,
    DataReport,
    Dataset,
    Dist,
    Encodings,
    Inspection,
    MemoryEstimate,
    ModelDescription,
    Models,
    SampledImage,
    SampleRequest,
    Stage,
    StepOutput,
    TrainState,
    Validation,
)

if TYPE_CHECKING:
    import numpy as np
    from mindspore import nn

Kind = Literal["owned", "merged", "observed"]
_F = TypeVar("_F", bound=Callable[..., Any])


def _spec(kind: Kind) -> Callable[[_F], _F]:
    """Mark a hook specification and record its kind, which `kind_of` reads."""

    def mark(function: _F) -> _F:
        function.kind = kind  # type: ignore[attr-defined]
        return hookspec(firstresult=kind == "owned")(function)

    return mark


def kind_of(spec: Callable[..., Any]) -> Kind:
    """The kind of a specification in this module."""
    kind: Kind = spec.kind  # type: ignore[attr-defined]
    return kind


# -------------------------------------------------------------------------------------------
# Configuration
# -------------------------------------------------------------------------------------------


@_spec("merged")
def config_sections() -> dict[str, type]:
    """Add sections to the configuration.

    Called before anything else, with nothing loaded. Each section is a dataclass whose fields
    are the section's options; see `launcher.training.options` for ranges, choices and help.

    Returns:
        Dataclasses by section name. A name that another plugin or the launcher already uses
        is an error.
    """


@_spec("merged")
def check_config(config: Config) -> list[str]:
    """Look for what is wrong with the configuration but shows in no single option.

    Called after every option has been checked by itself and before anything is loaded:
    missing files, damaged checkpoints, parts that do not fit each other. Cheap: it may read
    configuration files and the headers of weights, not the weights.

    Args:
        config: the resolved configuration.

    Returns:
        Problems, each a sentence or two that names the thing, the value and the way out. They
        are shown together.
    """


# -------------------------------------------------------------------------------------------
# Data and models
# -------------------------------------------------------------------------------------------


@_spec("owned")
def build_dataset(config: Config, dist: Dist) -> Dataset:
    """Open the data set and check it. Nothing is encoded and no weight is loaded.

    Args:
        config: the resolved configuration.
        dist: rank and number of processes; every rank sees the whole data set.

    Returns:
        The samples, by number.

    Raises:
        UserError: the data set is missing, empty, or a row of it cannot be used.
    """


@_spec("owned")
def inspect_data(config: Config, inspection: Inspection) -> DataReport:
    """Look at the data set without any model, for `launcher data check`. Not part of a run.

    Whoever answers `build_dataset` answers this one, too, so that it is about the same data. It
    goes through all rows, whatever is wrong with some, and loads nothing but tokenizers.

    Args:
        config: the resolved configuration; `check_config` has not been called.
        inspection: what is asked for, and what to tell.

    Returns:
        What was found. Default: the number of samples that `build_dataset` makes.

    Raises:
        UserError: the data set cannot be opened at all.
    """


@_spec("owned")
def prepare_data(config: Config, dataset: Dataset, say: Callable[[str], None]) -> Dataset:
    """Make the data that do not exist yet (images of the class, for prior preservation).

    Called once, when everything else has been checked and the output directory is this run's.
    What is made belongs to the user: it stays, and the next run finds it in `build_dataset`.

    Args:
        config: the resolved configuration.
        dataset: the samples from `build_dataset`, of which some cannot be read as yet.
        say: shows the user a line; for what takes long.

    Returns:
        The samples, of which all can be read. Default: unchanged.
    """


@_spec("owned")
def build_models(config: Config, stage: Stage) -> Models:
    """Load the parts that one stage needs, and only those.

    Weights that start at random are a function of `train.seed` (`launcher.training.random`).

    Args:
        config: the resolved configuration.
        stage: `precompute` (what encodes the data set) or `train` (what the step needs).

    Returns:
        The parts by name, not yet frozen. No parts: the stage is empty. Better without values
        (`launcher.training.weights.defer`): they are then read after `apply_precision`, straight
        into the dtype asked for, and not at all where the stage turns out to have nothing to do.

    Raises:
        UserError: a folder, file or weight is missing, damaged or of another architecture.
    """


@_spec("owned")
def configure_trainable(config: Config, models: Models) -> Models:
    """Say what is trained: set `requires_grad` on every parameter.

    Called in the `train` stage; in `precompute` the launcher freezes everything.

    Args:
        config: the resolved configuration.
        models: the parts of the `train` stage.

    Returns:
        The parts that the step needs. One that is left out here is not in memory any more when
        the step runs.
    """


@_spec("owned")
def apply_precision(config: Config, models: Models) -> Models:
    """Set the parameter dtype and the computation dtype of every part. Called in both stages.

    The parameters have dtypes, but may have no values as yet.

    With the functions of `launcher.training.precision`, which note what was asked for. Once the
    parts are compiled, it is compared with what their graphs do: a run in which they differ
    stops. It stops as well if trained parameters are in a part that was cast as frozen, or in
    half precision with an optimizer that does not update in float32, or if gradients pass through
    float16 and the loss is not scaled.

    Default: frozen parts are kept in the dtype of `precision.mixed_precision`, text encoders and
    trained parts as `precision.text_encoders` and `precision.trainable_params` say; all compute
    in half precision but text encoders that are kept in float32.

    Args:
        config: the resolved configuration.
        models: the parts, after `configure_trainable`.

    Returns:
        The same parts, cast.
    """


@_spec("owned")
def plan_encodings(config: Config, models: Models, networks: Models, dataset: Dataset) -> Encodings:
    """Say what has to be encoded, and under which key each encoding is kept.

    A key is a hash of all that an encoding depends on, and of nothing else, so that what is found
    under it is never wrong, and found again by every run that needs it. If all is found, the
    `precompute` stage is left out. Called in every process that needs the keys.

    Args:
        config: the resolved configuration.
        models: the parts of the `precompute` stage, frozen and cast, without values.
        networks: the parts of the `train` stage, cast, without values: encodings need be no wider
            than what takes them.
        dataset: the samples from `prepare_data`.

    Returns:
        What the recipe's own hooks need to find the encodings. Default: one without keys.
    """


@_spec("owned")
def precompute(
    config: Config, models: Models, dataset: Dataset, encodings: Encodings, cache: Cache
) -> Cache:
    """Encode what does not change during training, such as text embeddings.

    Called only if something is missing; in a process of its own, unless
    `precision.release_text_encoders` says otherwise.

    Args:
        config: the resolved configuration.
        models: the parts of the `precompute` stage, with values.
        dataset: the samples from `prepare_data`.
        encodings: from `plan_encodings`.
        cache: where the encodings go; `Cache.fill` makes those that are not there.

    Returns:
        The cache, in which no key of `encodings` is missing. Default: the cache as it is.
    """


@_spec("owned")
def estimate_memory(
    config: Config, models: Models, networks: Models, samples: Dataset | None
) -> MemoryEstimate:
    """Say what parameters do not tell of the memory that a run takes. For `launcher plan` only.

    Args:
        config: the resolved configuration.
        models: the parts of the `precompute` stage, cast, without values, perhaps without
            tokenizers.
        networks: the parts of the `train` stage, cast, without values.
        samples: from `build_dataset`; None: there is no data set that can be opened.

    Returns:
        Estimates, as far as the recipe has any. Default: all unknown.
    """


@_spec("owned")
def build_collate_fn(
    config: Config,
    models: Models,
    dataset: Dataset,
    encodings: Encodings,
    cache: Cache,
) -> CollateFn:
    """Make the function that turns sample numbers into the arrays of a micro-batch.

    All randomness of a step (noise, timesteps, posterior samples, dropout) is drawn here, on
    the host, from `draws`, so that the compiled graph has none and a resumed run draws the
    same numbers.

    Args:
        config: the resolved configuration.
        models: the parts of the `train` stage (schedulers are of use here).
        dataset: the samples.
        encodings: from `plan_encodings`.
        cache: the encodings.

    Returns:
        `collate(indices, draws) -> arrays`, the arrays in the order of the loss cell's
        `construct`. It runs in a thread of its own, while the step before is computed: it must
        not use MindSpore. Each new shape or dtype compiles a new graph; samples that have shapes
        of their own say so (`Dataset.groups`).
    """


# -------------------------------------------------------------------------------------------
# The step
# -------------------------------------------------------------------------------------------


@_spec("owned")
def build_loss(config: Config, models: Models) -> nn.Cell:
    """The forward pass and its loss, as one cell: what most variants want to change.

    Args:
        config: the resolved configuration.
        models: the parts of the `train` stage, trainable and cast.

    Returns:
        A cell whose `construct` takes the arrays of a micro-batch and returns the loss, a
        float32 scalar. It is compiled together with backward pass and update.
    """


@_spec("owned")
def build_optimizer(config: Config, parameters: list[Any]) -> nn.Optimizer:
    """The optimizer. Default: what `optimizer.name` says.

    Args:
        config: the resolved configuration.
        parameters: the trainable parameters (`mindspore.Parameter`).

    Returns:
        A `mindspore.nn.Optimizer` made with a constant learning rate; the step writes the
        scheduled rate into it before each update.
    """


@_spec("owned")
def train_step(state: TrainState, batch: Batch) -> StepOutput:
    """One optimisation step. Default: `state.compiled_step(batch, state.learning_rate)`.

    A step whose output says `skipped` does not count: the same step is tried again.

    Args:
        state: the loop's state; `state.step` steps are done.
        batch: the micro-batches of this step.

    Returns:
        Loss, gradient norm, and whether the update was skipped.
    """


# -------------------------------------------------------------------------------------------
# Validation
# -------------------------------------------------------------------------------------------


@_spec("owned")
def build_validation(
    config: Config,
    models: Models,
    dataset: Dataset,
    encodings: Encodings,
    cache: Cache,
    heldout: Sequence[int],
) -> Any:
    """Prepare what `validate` needs.

    Called only in a run that is validated, before its first step.

    Args:
        config: the resolved configuration.
        models: the parts of the `train` stage, with values.
        dataset: the samples, those that are held out among them.
        encodings: from `plan_encodings`.
        cache: the encodings.
        heldout: the numbers of the samples that are never trained on; `validation.heldout_samples`.

    Returns:
        Anything but None. With a method `compile`, which is called once, in graph mode, so that the
        user sees what takes time. Default: an empty tuple.
    """


@_spec("owned")
def validate(config: Config, models: Models, state: TrainState, prepared: Any) -> Validation:
    """Look at what is being trained.

    Called every `validation.validation_steps` steps, and before the first and after the last one
    where asked for. It must leave alone what the steps depend on, so that a run with validations
    trains as one without.

    Args:
        config: the resolved configuration.
        models: the parts of the `train` stage.
        state: the loop's state; `state.step` steps are done.
        prepared: from `build_validation`.

    Returns:
        Figures, images. Default: none, and the run refuses to be validated.
    """


# -------------------------------------------------------------------------------------------
# Results
# -------------------------------------------------------------------------------------------


@_spec("owned")
def export_weights(
    config: Config, models: Models, directory: Path, values: Callable[[Any], np.ndarray] | None
) -> list[Path]:
    """Write the trained weights in the layout that their users load.

    Their dtype is that of `checkpoint.save_weight_dtype`; None: as they are trained. Called at the
    end, and for every checkpoint, then in a thread of its own while the next steps run: it must not
    compute with MindSpore. What is there already is replaced.

    Args:
        config: the resolved configuration.
        models: the parts of the `train` stage.
        directory: where; exists.
        values: from a `mindspore.Parameter` to the array to be written of it, such as its average
            or what it was a step ago; None: what it is now. To be handed to
            `launcher.training.weights.write_parameters`.

    Returns:
        The files written.
    """


@_spec("owned")
def describe_model(config: Config, model_id: str) -> ModelDescription:
    """Say what the run has made, for the model card on the Hugging Face Hub.

    Called when the weights are exported, or later by `launcher push`, perhaps on another machine:
    with the configuration of the run, and without its models and data.

    Args:
        config: the resolved configuration, in which paths of options that are declared as such
            (`launcher.training.options.option`) are absolute, and OWNER/NAME is a name on the hub.
        model_id: the name that it gets on the hub, for what `usage` loads.

    Returns:
        What the run's own figures do not tell. Default: a sentence, and no usage.
    """


@_spec("owned")
def sample(config: Config, request: SampleRequest) -> Iterable[SampledImage]:
    """Make images with what a run has trained, for `launcher sample`.

    Called with the configuration of that run and, like `describe_model`, without its data; of a
    model that no run has made, with placeholders for what is not known. The device is chosen.

    Args:
        config: the resolved configuration.
        request: what is wanted.

    Returns:
        The images, one by one as they are made. Default: none, and the verb refuses the recipe.

    Raises:
        UserError: a control image or the weights cannot be used.
    """


# -------------------------------------------------------------------------------------------
# Observers
# -------------------------------------------------------------------------------------------


@_spec("observed")
def on_train_start(state: TrainState) -> None:
    """The first step is about to run.

    Args:
        state: the loop's state, `state.step` at its starting value.
    """


@_spec("observed")
def on_step_end(state: TrainState, output: StepOutput) -> None:
    """A step is done.

    Args:
        state: the loop's state; `state.step` counts the step just done.
        output: what `train_step` returned.
    """


@_spec("observed")
def on_checkpoint(state: TrainState, directory: Path) -> None:
    """A checkpoint is complete. The steps may have gone on meanwhile.

    Args:
        state: the loop's state.
        directory: the checkpoint's folder; its name has the step.
    """


@_spec("observed")
def on_train_end(state: TrainState) -> None:
    """Training is over and the weights are exported.

    Args:
        state: the loop's state.
    """
