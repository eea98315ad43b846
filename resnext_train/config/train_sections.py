"""The sections of a recipe about training: optimizer, learning rate over time, length, batch and precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from resnext_train.config.value_types import (
    AboveZero,
    Duration,
    Natural,
    NonNegative,
    Positive,
    PositiveDuration,
    Section,
)


class _Optimizer(Section):
    lr: AboveZero = 0.1
    """Learning rate for the global batch of `train.batch_size`; it is never rescaled."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum, without dampening."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty."""
    decay_1d: bool = True
    """Decay vectors (BN scale and shift, biases) too, as the papers' code does; false: matrices and kernels only."""
    clip_norm: AboveZero | None = None
    """Scale a step's gradient down to this L2 norm, over all parameters, where it is longer; null: never."""


class SgdSection(_Optimizer):
    """SGD as in the papers."""

    name: Literal["sgd"] = "sgd"
    """Optimizer."""
    nesterov: bool = True
    """Nesterov momentum, as in the papers' code."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdSection:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum above 0; set optimizer.nesterov to false")
        return self


class RmspropSection(_Optimizer):
    """RMSProp as torch.optim.RMSprop computes it: lr · gradient / (sqrt(mean of squares) + epsilon), then momentum."""

    name: Literal["rmsprop"]
    """Optimizer."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the running mean of squared gradients, a step."""
    epsilon: AboveZero = 1.0
    """Added to the root of the mean of squares; 1.0 is the Inception-v3 paper's."""


OptimizerSection = Annotated[SgdSection | RmspropSection, Field(discriminator="name")]


class _Schedule(Section):
    warmup: Duration = 0.0
    """Linear rise of the learning rate at the start; 0: none, as in the papers."""


class StepSchedule(_Schedule):
    """The learning rate is multiplied by `factor` at each milestone."""

    name: Literal["step"] = "step"
    """Kind of schedule."""
    milestones: tuple[Duration, ...] = (30.0, 60.0, 90.0)
    """When to multiply: after that many epochs (or steps)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What to multiply by."""


class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate to `final` over what follows the warmup."""

    name: Literal["cosine"]
    """Kind of schedule."""
    final: NonNegative = 0.0
    """Learning rate at the end."""


class PlateauSchedule(_Schedule):
    """Multiplied by `factor` when the validation top-1 error stops falling (the ResNet paper's rule)."""

    name: Literal["plateau"]
    """Kind of schedule."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What to multiply by."""
    patience: Natural = 5
    """Evaluations without improvement that are tolerated; the next one without reduces the learning rate."""
    threshold: NonNegative = 0.1
    """Fall of the top-1 error, in percentage points below the best, that counts as improvement."""
    minimum: NonNegative = 1e-6
    """The learning rate never falls below this."""


class ExponentialSchedule(_Schedule):
    """Multiplied by `factor` after every `every`, in stairs (Inception-v3 paper, section 8)."""

    name: Literal["exponential"]
    """Kind of schedule."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.94
    """What to multiply by."""
    every: PositiveDuration = 2.0
    """Epochs (or steps) between two reductions."""


ScheduleSection = Annotated[
    StepSchedule | CosineSchedule | PlateauSchedule | ExponentialSchedule,
    Field(discriminator="name"),
]


class TrainSection(Section):
    """Length, batch and precision of training."""

    epochs: Annotated[int, Field(gt=0, le=1_000_000)] = 90
    """Passes over the training split."""
    max_steps: Positive | None = None
    """End the run, and with it a cosine, after this many steps even if `epochs` are not over; null: no limit."""
    batch_size: Positive = 256
    """Images in one step over all processes: the global batch."""
    micro_batch: Positive = 32
    """Images in one BN group. A step always consists of batch_size / micro_batch groups, dealt to the processes."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over all classes; never used in evaluation."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: on CUDA bf16, else fp16 with loss scaling; on a CPU with bf16 instructions bf16; else fp32."""
    compile: bool = False
    """Compile the network with torch.compile."""
    max_skipped: Natural = 20
    """Steps in a row whose loss or gradient is not finite that are skipped; one more ends the run."""
    patience: AboveZero = 10.0
    """Minutes that the processes wait for one that is silent before the run ends."""
    seed: Natural = 0
    """Seed of the initial weights, of the order of images and of their augmentation."""

    @model_validator(mode="after")
    def _micro_batches(self) -> TrainSection:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be a multiple of train.micro_batch ({self.micro_batch})"
            )
        if self.micro_batch < 2:
            raise ValueError("train.micro_batch must be at least 2: BN needs two images to a group")
        return self

    @property
    def micro_batches(self) -> int:
        """BN groups in one step."""
        return self.batch_size // self.micro_batch
