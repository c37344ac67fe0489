"""The values that hooks receive and return: plain dataclasses, no framework imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from mindspore import nn

#: What `build_models` is asked for. `precompute` encodes the data set (text encoders, VAE);
#: `train` holds what the training step needs. They are never in memory together unless a
#: recipe chooses so.
Stage = Literal["precompute", "train"]

#: The arrays of one micro-batch, in the order in which the loss cell's `construct` takes them.
MicroBatch = tuple["np.ndarray", ...]


class Config(Mapping[str, Any]):
    """The resolved configuration: one dataclass instance per section.

    Sections are attributes (`config.train.learning_rate`) and mapping items
    (`config["train"]`). Nothing in it changes after the run has started.
    """

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self.__dict__.update(sections)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the configuration has no section {name!r}; it has {', '.join(sorted(self))}"
        )

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)


@dataclass(frozen=True)
class Dist:
    """This process's place among the processes of the run."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files and talks to the user."""
        return self.rank == 0


class Dataset(Protocol):
    """Samples by number. What a sample is, is between a recipe's own hooks.

    A data set whose samples differ in shape has an attribute `groups`, integers `[N]`: every
    micro-batch is made of samples of one group, which have one shape. One that `prepare_data` has
    to add to has a true attribute `is_incomplete`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Inspection:
    """How a data set is to be looked at.

    Attributes:
        full: decode every image.
        every: name all rows that have problems, not only a few of each kind.
        tflops: the speed to work encoding times out with, 10^12 operations a second; None: what
            runs have measured, or a guess that is stated.
        tell: told how far it is: what goes on, what is counted (in the singular), how many of
            them are done, of how many.
        build_dataset: the data set as a run builds it; raises UserError if it cannot be used.
    """

    full: bool
    every: bool
    tflops: float | None
    tell: Callable[[str, str, int, int], None]
    build_dataset: Callable[[], Dataset]


class DataReport(Protocol):
    """What was found in a data set."""

    def as_json(self) -> Mapping[str, Any]:
        """All of it, in what JSON has."""
        ...

    def text(self) -> str:
        """All of it, for a terminal."""
        ...

    def problems(self) -> Sequence[str]:
        """What keeps a run from starting, in sentences; empty if nothing does."""
        ...


class Encodings(Protocol):
    """The keys of what a run needs encoded. What else it is, is between a recipe's own hooks.

    Where some of it is not of the data set (prompts of validations), a method `data_keys` leaves
    that out: a run is continued on the same data, and perhaps with other prompts.
    """

    def keys(self) -> np.ndarray:
        """uint8 `[N, 32]`: a SHA-256 digest per encoding, each once."""
        ...


class Cache(Protocol):
    """Where encodings are kept: named arrays under a key; see `launcher.training.cache`."""

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """bool `[N]`: which of the keys, uint8 `[N, 32]`, are not there."""
        ...

    def get(self, key: bytes) -> Mapping[str, np.ndarray]:
        """The arrays under a key, read-only, in the dtypes that they were kept in."""
        ...

    def fill(
        self,
        kind: str,
        keys: np.ndarray,
        encode: Callable[[Sequence[int]], Mapping[str, np.ndarray]],
        describe: Callable[[int], str],
        *,
        batch_size: int = 8,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Make the encodings that are missing, and keep them.

        Args:
            kind: what they are of: `text`, `image`.
            keys: uint8 `[N, 32]`, each once; those that are there are left alone.
            encode: takes `batch_size` positions in `keys`, the last one perhaps several times, and
                returns arrays `[batch_size, ...]` by name; shapes and dtypes never change.
            describe: a position's input, in words.
            batch_size: encoded together; a constant, so that one compiled graph does.
            about: what they were made with, in words, for whoever looks at the cache.
        """
        ...


@dataclass(frozen=True)
class MemoryEstimate:
    """What only a recipe can say of the memory of a run, in bytes; None: unknown.

    Attributes:
        activations: what the backward pass of a micro-batch needs of its forward pass, without
            gradient checkpointing.
        checkpointed: the same with gradient checkpointing.
        checkpointing: whether the configuration has it.
        checkpointing_option: how to have it, such as `model.gradient_checkpointing=true`.
        encoding: what encoding a batch takes beside the encoders.
        encodings: what is kept, by kind: what it is of, in the singular (`caption`, `image`); bytes
            of one encoding; how many a sample needs that shares none with others; and how many
            the data set needs, None if there is none to count.
    """

    activations: float | None = None
    checkpointed: float | None = None
    checkpointing: bool | None = None
    checkpointing_option: str = ""
    encoding: float | None = None
    encodings: Sequence[tuple[str, int, int, int | None]] = ()


@dataclass(frozen=True)
class ModelDescription:
    """What only a recipe can say of the model that a run has made, for its model card.

    Texts are Markdown: what comes from the configuration is escaped (`launcher.training.markdown`),
    and names local files by their last part (`launcher.training.private`).

    Attributes:
        summary: what it is, in a sentence or two.
        tags: what it is found by on the hub, such as `controlnet`.
        base_model: its name on the hub; None: it has none.
        dataset: what it was trained on, in words; None: not said.
        dataset_name: the name of the data set on the hub; None: it has none.
        metadata: further metadata of the card: `library_name`, `license`, `license_name`,
            `license_link`, `base_model_relation`, `pipeline_tag`, `instance_prompt`, ...
        usage: a Python script that uses it; empty: none is shown.
        commands: shell commands that use it with this launcher; empty: none are shown.
    """

    summary: str
    tags: Sequence[str] = ()
    base_model: str | None = None
    dataset: str | None = None
    dataset_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    usage: str = ""
    commands: str = ""


@dataclass(frozen=True)
class Validation:
    """What a validation has found.

    Attributes:
        figures: numbers by name, of which `validation/figures.jsonl` has a line.
        images: files to be shown, by name; they are in the run's folder.
        summary: the same for the user, in a line; empty: the figures are listed.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True)
class SampleRequest:
    """The images that `launcher sample` is asked for.

    Attributes:
        weights: a folder that `export_weights` has filled, or that somebody else has made.
        subjects: a prompt and the path of its control image each; None: there is none.
        scales: what the outputs of a ControlNet are multiplied by; each image is made with all.
        num_images: of each subject and scale, of different noise.
        num_inference_steps: of the sampler.
        guidance_scale: that a guidance-distilled model is told; None: nothing was asked for.
        control_mode: kind of the control images, for a union of ControlNets; None: not asked for.
        seed: of the noise.
        size: (height, width) in pixels; None: that of the data which is nearest in shape.
        build: the parts of a stage for a configuration, as a run has them, without values.
        encode_elsewhere: has another process call the same hook, with `encodes_only`.
        encodes_only: the prompts are to be encoded and kept, and no image is to be made.
        say: told what the user should know, a line at a time.
    """

    weights: Path
    subjects: Sequence[tuple[str, str | None]]
    scales: Sequence[float]
    num_images: int
    num_inference_steps: int
    guidance_scale: float | None
    control_mode: int | None
    seed: int
    size: tuple[int, int] | None
    build: Callable[[Config, Stage], Models]
    encode_elsewhere: Callable[[], object]
    encodes_only: bool
    say: Callable[[str], object]


@dataclass(frozen=True)
class SampledImage:
    """An image that was asked for.

    Attributes:
        subject: its position among the subjects.
        scale: its position among the scales.
        number: which of the images of this subject and scale.
        image: uint8 `[height, width, 3]`.
        control: the control image as the network has seen it, likewise; None: there is none.
    """

    subject: int
    scale: int
    number: int
    image: np.ndarray
    control: np.ndarray | None = None


class Draws(Protocol):
    """Random numbers as a function of (seed, step, slot, name); see `launcher.training.random`.

    `slots` are positions in the global batch of the step, so one process and N processes draw
    the same numbers for the same batch. Each name is an independent stream.
    """

    def uniform(self, name: str) -> np.ndarray:
        """float64 `[B]` in [0, 1), one per slot."""
        ...

    def normal(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """float32 `[B, *shape]`, standard normal."""
        ...


#: Turns sample numbers into the arrays of one micro-batch.
CollateFn = Callable[[Sequence[int], Draws], MicroBatch]


class Models(dict[str, Any]):
    """The parts of a model by the name of their folder in a pipeline.

    For FLUX: `tokenizer`, `tokenizer_2`, `text_encoder`, `text_encoder_2`, `vae`,
    `transformer`, `controlnet`, `scheduler`; a stage holds only some of them.
    """

    def cells(self) -> dict[str, nn.Cell]:
        """The parts that have parameters (neither tokenizers nor schedulers)."""
        return {name: part for name, part in self.items() if hasattr(part, "get_parameters")}

    def trainable_parameters(self) -> list[Any]:
        """Parameters with `requires_grad`, in the order of the parts."""
        return [p for cell in self.cells().values() for p in cell.trainable_params()]


@dataclass(frozen=True)
class Batch:
    """The input of one optimisation step.

    `micro_batches` has `train.gradient_accumulation_steps` entries; their gradients are
    averaged. `samples` counts the samples of all processes; `epoch` the passes over the data set
    before its first one.
    """

    micro_batches: Sequence[MicroBatch]
    samples: int
    epoch: int = 0


@dataclass(frozen=True)
class StepOutput:
    """What one optimisation step reports, as Python numbers.

    Attributes:
        loss: mean loss over the micro-batches, unscaled.
        grad_norm: global L2 norm of the gradients before clipping.
        skipped: True if the update was left out because a gradient was not finite.
        metrics: further figures, written to `metrics.jsonl` under their names.
    """

    loss: float
    grad_norm: float
    skipped: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class TrainState:
    """The state of the loop, passed to `train_step` and to the observers.

    Attributes:
        config: the resolved configuration.
        models: the parts of the `train` stage.
        loss: the cell from `build_loss`.
        optimizer: the optimizer from `build_optimizer`.
        compiled_step: runs one optimisation step on a batch at a learning rate; what the
            default `train_step` calls.
        max_train_steps: where the run ends.
        output_dir: the run's folder.
        dist: this process's rank and the number of processes.
        step: optimisation steps completed.
        epoch: passes over the data set begun, counted from 0.
        learning_rate: the rate of the step about to run.
        memory: for plugins: what they want to find again in a continued run, by a name of their
            own. Saved with every checkpoint, after `on_step_end`; of what JSON can hold.
    """

    config: Config
    models: Models
    loss: nn.Cell
    optimizer: nn.Optimizer
    compiled_step: Callable[[Batch, float], StepOutput]
    max_train_steps: int
    output_dir: Path
    dist: Dist
    step: int = 0
    epoch: int = 0
    learning_rate: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
