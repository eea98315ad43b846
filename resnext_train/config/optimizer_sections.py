"""Recipe sections about the optimizer and its learning rate over time."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from resnext_train.config.value_types import (
    AboveZero,
    Duration,
    Fraction,
    Natural,
    NonNegative,
    PositiveDuration,
    Section,
    amount_and_unit,
)


class _Optimizer(Section):
    lr: AboveZero | None = 0.1
    """Learning rate for a global batch of `train.batch_size`; never rescaled. null: by `lr_per_256`, as where only
    that is set."""
    lr_per_256: AboveZero | None = None
    """Learning rate for 256 images, by which that of a batch of `train.batch_size` grows in proportion (linear scaling
    rule, arXiv 1706.02677). Takes the place of a weaker layer's `lr`, which becomes null, and a stronger one's `lr` the
    place of this. null: not used."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty; of AdamW and LAMB the decay that is apart from the gradient."""
    decay_1d: bool = True
    """Decay vectors (BN scale and shift, biases), too, as in the papers' code; false: only matrices and kernels."""
    clip_norm: AboveZero | None = None
    """Largest L2 norm of a step's gradient over all parameters; longer ones are scaled down. null: no limit."""

    @model_validator(mode="after")
    def _one_learning_rate(self) -> _Optimizer:
        if (self.lr is None) == (self.lr_per_256 is None):
            both = "are both set; leave one out" if self.lr else "are both null; set one of them"
            raise ValueError(f"optimizer.lr and optimizer.lr_per_256 {both}")
        return self

    def peak_lr(self, batch_size: int) -> float:
        """Return the learning rate for a global batch of so many images."""
        if self.lr_per_256 is not None:
            return self.lr_per_256 * batch_size / 256
        assert self.lr is not None
        return self.lr


class _WithMomentum(_Optimizer):
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum, without dampening."""


class _Adaptive(_Optimizer):
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the running mean of gradients per step."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the running mean of squared gradients per step."""


class SgdSection(_WithMomentum):
    """SGD as in the papers."""

    name: Literal["sgd"] = "sgd"
    """Name of the optimizer."""
    nesterov: bool = True
    """Use Nesterov momentum, as in the papers' code."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdSection:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum above 0; set optimizer.nesterov to false")
        return self


class RmspropSection(_WithMomentum):
    """RMSProp as in torch.optim.RMSprop: lr · gradient / (sqrt(mean of squares) + epsilon), then momentum."""

    name: Literal["rmsprop"]
    """Name of the optimizer."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the running mean of squared gradients per step."""
    epsilon: AboveZero = 1.0
    """Added to the root of the mean of squares; the Inception-v3 paper uses 1.0."""


class AdamwSection(_Adaptive):
    """AdamW as in torch.optim.AdamW (arXiv 1711.05101)."""

    name: Literal["adamw"]
    """Name of the optimizer."""
    epsilon: AboveZero = 1e-8
    """Added to the root of the mean of squares."""


class LambSection(_Adaptive):
    """LAMB as in timm.optim.Lamb (arXiv 1904.00962). timm's own limit of the gradient's norm is `clip_norm: 1.0`."""

    name: Literal["lamb"]
    """Name of the optimizer."""
    epsilon: AboveZero = 1e-6
    """Added to the root of the mean of squares."""


OptimizerSection = Annotated[SgdSection | RmspropSection | AdamwSection | LambSection, Field(discriminator="name")]


class _Schedule(Section):
    warmup: Duration = 0.0
    """Epochs (or steps) of linear warmup of the learning rate; 0: none, as in the papers."""
    warmup_from: Fraction | None = None
    """Factor on the learning rate in the first step of the warmup, which then ends with the step after its last; null:
    one part of it in the first step, all of it in the last."""


class StepSchedule(_Schedule):
    """The learning rate is multiplied by `factor` at each milestone."""

    name: Literal["step"] = "step"
    """Kind of schedule."""
    milestones: tuple[Duration, ...] = (30.0, 60.0)
    """Epochs (or steps) after which the learning rate is multiplied; twice where two are equal."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor on the learning rate."""


class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate to `final`, after the warmup."""

    name: Literal["cosine"]
    """Kind of schedule."""
    final: NonNegative = 0.0
    """Learning rate at the end."""


class PlateauSchedule(_Schedule):
    """The learning rate is multiplied by `factor` when the validation top-1 error stops falling (ResNet paper).

    It is the network's own error, also where `ema` keeps an average.
    """

    name: Literal["plateau"]
    """Kind of schedule."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor on the learning rate."""
    patience: Natural = 5
    """Evaluations in a row without improvement that are tolerated; the next one reduces the learning rate."""
    threshold: NonNegative = 0.1
    """Percentage points by which the top-1 error must fall below the best to count as improvement."""
    minimum: NonNegative = 1e-6
    """Lower limit of the learning rate."""


class ExponentialSchedule(_Schedule):
    """The learning rate is multiplied by `factor` once per `every`, in stairs (Inception-v3 paper, section 8)."""

    name: Literal["exponential"]
    """Kind of schedule."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.94
    """Factor on the learning rate."""
    every: PositiveDuration = 2.0
    """Epochs (or steps) between reductions."""


class LinearSchedule(_Schedule):
    """The learning rate is linear between points."""

    name: Literal["linear"]
    """Kind of schedule."""
    points: Annotated[tuple[tuple[Duration, NonNegative], ...], Field(min_length=1)] = ((0.0, 1.0), (90.0, 0.0))
    """Epochs (or steps) in ascending order, each with the factor on the learning rate there. Before the first and after
    the last it stays."""

    @model_validator(mode="after")
    def _points_ascend(self) -> LinearSchedule:
        for unit in ("epochs", "steps"):  # how these relate is known once an epoch has a number of steps
            times = [amount for amount, of in (amount_and_unit(when) for when, _ in self.points) if of == unit]
            for begin, end in pairwise(times):
                if end <= begin:
                    raise ValueError(
                        f"schedule.points: {end:g} {unit} stand after {begin:g} {unit}; put them in ascending order"
                    )
        return self


ScheduleSection = Annotated[
    StepSchedule | CosineSchedule | PlateauSchedule | ExponentialSchedule | LinearSchedule,
    Field(discriminator="name"),
]
