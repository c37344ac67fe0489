"""The launcher's own configuration sections. Recipes add theirs (`config_sections`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

from launcher.training.optimizers import HALF_PRECISION_PARAMETERS
from launcher.training.options import option


@dataclass(frozen=True)
class TrainSection:
    """`train`: length of the run, batch, learning rate."""

    output_dir: str = option(
        help="folder that the run writes to; new, or with nothing in it but single files",
        resume="free",
        path="local",
    )
    seed: int = option(0, ge=0, help="seed of everything random")
    train_batch_size: int = option(
        4, ge=1, help="samples per micro-batch and process", resume="continues"
    )
    gradient_accumulation_steps: int = option(
        1, ge=1, help="micro-batches per update", resume="continues"
    )
    max_train_steps: int | None = option(
        None, ge=1, help="updates in the run; overrides num_train_epochs", resume="continues"
    )
    num_train_epochs: int = option(1, ge=1, help="passes over the data set", resume="continues")
    learning_rate: float = option(5e-6, ge=0, help="rate after warm-up", resume="continues")
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant",
        "constant_with_warmup", "piecewise_constant",
    ] = option(
        "constant", help="schedule of the learning rate, as in diffusers", resume="continues"
    )  # fmt: skip
    lr_warmup_steps: int = option(0, ge=0, help="updates of linear warm-up", resume="continues")
    lr_num_cycles: int = option(
        1, ge=1, help="restarts of cosine_with_restarts", resume="continues"
    )
    lr_power: float = option(1.0, gt=0, help="power of polynomial", resume="continues")
    lr_step_rules: str = option(
        "",
        help="rules of piecewise_constant: `1:10,0.1:20,0.01` is factor 1 until step 10, ...",
        resume="continues",
    )
    max_grad_norm: float | None = option(
        1.0,
        gt=0,
        help="clip the global gradient norm to this; null: no clipping",
        resume="continues",
    )
    on_nonfinite: Literal["stop", "skip"] = option(
        "stop",
        help="a step whose gradients are not finite is never applied; stop: save and end the run; "
        "skip: go on with the next batch",
        resume="continues",
    )
    ema_decay: float | None = option(
        None,
        gt=0,
        lt=1,
        help="keep a moving average of the trained weights, too, and export it beside them; the "
        "usual decay is 0.999 to 0.9999. null: none",
        resume="continues",
    )

    def problems(self) -> Iterable[str]:
        """Options that the chosen schedule would ignore."""
        scheduler = self.lr_scheduler
        if self.lr_warmup_steps and scheduler in ("constant", "piecewise_constant"):
            yield (
                f"train.lr_warmup_steps is {self.lr_warmup_steps}, but the schedule {scheduler} "
                "has no warm-up; set train.lr_scheduler to constant_with_warmup or another"
            )
        if self.lr_num_cycles != 1 and scheduler != "cosine_with_restarts":
            yield (
                f"train.lr_num_cycles is {self.lr_num_cycles}, which only the schedule "
                f"cosine_with_restarts uses; train.lr_scheduler is {scheduler}"
            )
        if self.lr_power != 1.0 and scheduler != "polynomial":
            yield (
                f"train.lr_power is {self.lr_power}, which only the schedule polynomial uses; "
                f"train.lr_scheduler is {scheduler}"
            )


@dataclass(frozen=True)
class PrecisionSection:
    """`precision`: in what dtype parts are kept and compute."""

    mixed_precision: Literal["no", "fp16", "bf16"] = option(
        "no", help="what networks and VAE compute in; fp16 scales the loss dynamically"
    )
    text_encoders: Literal["fp32", "half"] = option(
        "fp32", help="what these are kept and compute in; half: the dtype of mixed_precision"
    )
    trainable_params: Literal["fp32", "half"] = option(
        "fp32",
        help="what trained parameters are kept in; half, which is the dtype of mixed_precision, "
        "needs the optimizer adamw_upcast or adamw_bf16",
    )
    attention: Literal["auto", "fp16", "bf16", "fp32"] = option(
        "auto",
        help="what the attention of transformer and ControlNet computes in; auto: what they "
        "compute in; fp32: without FlashAttention; fp16 scales the loss",
    )
    release_text_encoders: Literal["process", "keep", "delete", "cast"] = option(
        "process",
        help="where text encoders and VAE go once the data set is encoded. process: they live in a "
        "process of their own, which ends; keep: they stay; delete: no reference is left, but "
        "MindSpore's memory pool; cast: to half precision first, then delete",
        resume="free",
    )
    max_skipped_updates: int = option(
        20,
        ge=1,
        help="with fp16: how often a step without finite gradients is tried, each time at half the "
        "loss scale; with train.on_nonfinite=skip: stop after as many such steps in a row",
        resume="continues",
    )

    @property
    def loss_scaling(self) -> bool:
        """Whether small gradients would be lost without it."""
        return "fp16" in (self.mixed_precision, self.attention)

    def problems(self) -> Iterable[str]:
        """Options that would have no effect."""
        if self.trainable_params == "half" and self.mixed_precision == "no":
            yield (
                "precision.trainable_params is half, which is the dtype of "
                "precision.mixed_precision, and that is no; set it to bf16 or fp16"
            )


#: Options of `optimizer` that only some optimizers use. A variant's own may use any of them.
_OPTIMIZERS_THAT_USE = {
    "adam_epsilon": ("adamw", "adam_weight_decay", "adamw_bf16", "adamw_upcast", "muon"),
    "stochastic_rounding": ("adamw_upcast",),
    "came_beta3": ("came",),
    "muon_momentum": ("muon",),
}


@dataclass(frozen=True)
class OptimizerSection:
    """`optimizer`: which optimizer, and its constants."""

    name: Literal[
        "adamw", "adam_weight_decay", "adamw_bf16", "adamw_upcast", "came", "muon"
    ] = option(
        "adamw",
        help="adamw: as in torch; adam_weight_decay: mindspore.nn, without bias correction; "
        "adamw_bf16, adamw_upcast: adamw for half-precision parameters, with a float32 copy of "
        "them or without; came: factored second moments; muon: orthogonalised momentum of "
        "matrices, adamw for the rest",
    )  # fmt: skip
    adam_beta1: float = option(
        0.9, ge=0, lt=1, help="decay of the first moment", resume="continues"
    )
    adam_beta2: float = option(
        0.999, ge=0, lt=1, help="decay of the second moment", resume="continues"
    )
    adam_epsilon: float = option(
        1e-8, gt=0, help="added to the root of the second moment", resume="continues"
    )
    adam_weight_decay: float = option(1e-2, ge=0, help="decoupled weight decay", resume="continues")
    stochastic_rounding: bool = option(
        False,
        help="adamw_upcast: round up or down at random, which keeps small updates on average",
        resume="continues",
    )
    came_beta3: float = option(
        0.9999, ge=0, lt=1, help="came: decay of the residuals", resume="continues"
    )
    muon_momentum: float = option(
        0.95, ge=0, lt=1, help="muon: decay of the average gradient", resume="continues"
    )

    def problems(self) -> Iterable[str]:
        """Options that the chosen optimizer would ignore."""
        for field in fields(self):
            users = _OPTIMIZERS_THAT_USE.get(field.name)
            value = getattr(self, field.name)
            if users and self.name not in users and value != field.default:
                yield (
                    f"optimizer.{field.name} is {str(value).lower()}, which optimizer.name="
                    f"{self.name} does not use, only {', '.join(users)}"
                )


def skipping_problems(precision: PrecisionSection, train: TrainSection) -> list[str]:
    """A limit of what never happens."""
    limit = precision.max_skipped_updates
    default = type(precision).max_skipped_updates
    if limit == default or precision.loss_scaling or train.on_nonfinite == "skip":
        return []
    return [
        f"precision.max_skipped_updates is {limit}, but updates are skipped only where the loss is "
        "scaled, with precision.mixed_precision=fp16, or with train.on_nonfinite=skip."
    ]


def precision_problems(precision: PrecisionSection, optimizer: OptimizerSection) -> list[str]:
    """Why the launcher's own optimizer cannot train parameters as they are to be kept."""
    if precision.trainable_params == "half" and optimizer.name not in HALF_PRECISION_PARAMETERS:
        return [
            f"precision.trainable_params is half, and optimizer.name={optimizer.name} updates "
            "parameters in their own dtype, in which small updates are lost. Set optimizer.name "
            f"to {' or '.join(HALF_PRECISION_PARAMETERS)}, or precision.trainable_params to fp32."
        ]
    return []


@dataclass(frozen=True)
class CheckpointSection:
    """`checkpoint`: what is written, and when."""

    save_weight_dtype: Literal["fp32", "fp16", "bf16"] | None = option(
        None, help="dtype of the exported weights; null: as they are trained", resume="free"
    )
    checkpointing_steps: int | None = option(
        500,
        ge=1,
        help="steps between checkpoints, which --resume goes on from; the end has one, too. null: "
        "none by count",
        resume="free",
    )
    every_minutes: float | None = option(
        None, gt=0, help="minutes after which one is due, too; null: none by time", resume="free"
    )
    checkpoints_total_limit: int | None = option(
        None,
        ge=1,
        help="checkpoints to keep; the oldest goes when a newer one is complete. null: all",
        resume="free",
    )


@dataclass(frozen=True)
class ValidationSection:
    """`validation`: looking at what is being trained, while it is."""

    validation_steps: int | None = option(
        None, ge=1, help="steps between validations; null: none by count", resume="free"
    )
    at_start: bool = option(False, help="validate before the first step", resume="free")
    at_end: bool = option(False, help="validate after the last step", resume="free")
    heldout_samples: int = option(
        0,
        ge=0,
        help="samples, the last ones of the data set, that are not trained on: validations tell "
        "the loss on them",
    )

    @property
    def is_wanted(self) -> bool:
        """Whether there are validations."""
        return self.validation_steps is not None or self.at_start or self.at_end

    def problems(self) -> Iterable[str]:
        """Samples that nobody looks at."""
        if self.heldout_samples and not self.is_wanted:
            yield (
                f"validation.heldout_samples is {self.heldout_samples}, but there are no "
                "validations: set validation.validation_steps, at_start or at_end"
            )


Service = Literal["tensorboard", "wandb", "swanlab"]


@dataclass(frozen=True)
class TrackingSection:
    """`tracking`: services that show the run while it goes on."""

    report_to: Service | list[Service] | None = option(
        None,
        help="services that are told of each step, beside metrics.jsonl: one, or a list",
        resume="free",
    )
    tracker_project_name: str | None = option(
        None, help="project at wandb and swanlab; null: the recipe's name", resume="free"
    )
    tracker_run_name: str | None = option(
        None, help="name of the run there; null: that of its folder", resume="free"
    )
    offline: bool = option(
        False,
        help="wandb and swanlab keep everything in the run's folder, to be sent later",
        resume="free",
    )

    @property
    def services(self) -> list[Service]:
        """Those of `report_to`."""
        given = self.report_to
        return list(given) if isinstance(given, list) else [given] if given else []

    def problems(self) -> Iterable[str]:
        """A service twice, and options that no service uses."""
        services = self.services
        for name in sorted({name for name in services if services.count(name) > 1}):
            yield f"tracking.report_to names {name} more than once"
        if {"wandb", "swanlab"} & set(services):
            return
        for option_name in ("tracker_project_name", "tracker_run_name", "offline"):
            value = getattr(self, option_name)
            if value:
                yield (
                    f"tracking.{option_name} is {str(value).lower() if value is True else value}, "
                    "which only wandb and swanlab use; tracking.report_to names neither"
                )


@dataclass(frozen=True)
class RuntimeSection:
    """`runtime`: device and execution mode."""

    device: Literal["auto", "Ascend", "CPU"] = option(
        "auto", help="auto: Ascend where there is one, else CPU", resume="free"
    )
    device_id: int = option(0, ge=0, help="which NPU", resume="free")
    mode: Literal["graph", "pynative"] = option(
        "graph",
        help="graph: compile the step; pynative: run op by op, to debug",
        resume="continues",
    )
    prefetch: int = option(
        2,
        ge=0,
        help="batches that a thread makes ahead of the step; 0: the step waits for each",
        resume="free",
    )


@dataclass(frozen=True)
class HubSection:
    """`hub`: sharing on the Hugging Face Hub, at the end of a run or by `launcher push`. The token
    is huggingface_hub's own (`hf auth login` or HF_TOKEN)."""

    push_to_hub: bool = option(
        False,
        help="upload the exported weights and a model card when the run is over",
        resume="free",
    )
    hub_model_id: str | None = option(
        None,
        help="repository for the upload, NAME or OWNER/NAME, made if it does not exist; null: the "
        "name of output_dir's folder. Also used by `launcher push`",
        resume="free",
    )
    hub_private_repo: bool | None = option(
        None,
        help="whether a repository that the upload makes is private; null: as its owner has it by "
        "default, mostly public. Also used by `launcher push`",
        resume="free",
    )


SECTIONS: dict[str, type] = {
    "train": TrainSection,
    "precision": PrecisionSection,
    "optimizer": OptimizerSection,
    "checkpoint": CheckpointSection,
    "validation": ValidationSection,
    "tracking": TrackingSection,
    "runtime": RuntimeSection,
    "hub": HubSection,
}
