"""The sections of a recipe: every key with its type, range, default and meaning."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

_DURATION = re.compile(r"(\d+(?:\.\d+)?) (epoch|step)s?")


def _check_duration(value: float | str) -> float | str:
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        raise ValueError("a duration is a number of epochs, '5 epochs' or '500 steps'")
    if not isinstance(value, str) and value < 0:
        raise ValueError("a duration cannot be negative")
    return value


Duration = Annotated[
    float | str,
    AfterValidator(_check_duration),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}
    ),
]
"""A number of epochs, or "N epochs", or "N steps"."""


def duration_in_steps(duration: float | str, steps_per_epoch: int) -> int:
    """Optimizer steps in `duration`, rounded to the nearest; the only place where durations become steps."""
    if isinstance(duration, str):
        match = _DURATION.fullmatch(duration)
        assert match, duration
        amount = float(match[1])
        return round(amount if match[2] == "step" else amount * steps_per_epoch)
    return round(duration * steps_per_epoch)


class Section(BaseModel):
    """What all sections share: no unknown keys, no silent conversion, no change after loading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Triple = tuple[float, float, float]
_AboveZero = Annotated[float, Field(gt=0)]
PositiveTriple = tuple[_AboveZero, _AboveZero, _AboveZero]


class ModelSection(Section):
    """The network."""

    arch: str
    """Name as the papers write it: resnet50, resnext50_32x4d (depth 50, cardinality 32, base width 4), ..."""
    num_classes: Literal["auto"] | Positive = "auto"
    """Outputs of the classifier; auto: as many as the data has classes. A number that disagrees is an error."""
    blocks: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)] | None = None
    """Blocks in each of the four stages, for a depth that has no customary split; null: as `arch` says."""
    cardinality: Positive | None = None
    """Groups of the 3×3 convolution (C); null: as `arch` says."""
    base_width: Positive | None = None
    """Width of one group in the first stage (d); null: as `arch` says."""


class _Data(Section):
    workers: Literal["auto"] | Natural = "auto"
    """Loader processes per training process; auto: the cores this process may use / local processes."""
    mean: Triple = (0.485, 0.456, 0.406)
    """Mean of R, G, B on a scale of 0 to 1, subtracted from every image."""
    std: PositiveTriple = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B on a scale of 0 to 1, divided by after the mean."""


class FolderData(_Data):
    """Images in folders: root/train/CLASS/... and root/val/CLASS/..."""

    source: Literal["folder"] = "folder"
    """Where the images come from."""
    root: str | None = None
    """Folder that holds train/ and val/, each with one folder per class."""


class SyntheticData(_Data):
    """Procedural images that need no files: coloured gratings, one colour and frequency per class; learnable."""

    source: Literal["synthetic"]
    """Where the images come from."""
    classes: Annotated[int, Field(ge=2)] = 10
    """Number of classes."""
    train_images: Positive = 2000
    """Images in the training split."""
    val_images: Positive = 500
    """Images in the validation split."""
    size: Positive = 256
    """Height and width of an image in pixels."""


DataSection = Annotated[FolderData | SyntheticData, Field(discriminator="source")]


class AugmentSection(Section):
    """Training augmentation, by default that of the ResNeXt paper's code: crop, flip, colour jitter, lighting."""

    size: Positive = 224
    """Height and width of a training crop in pixels."""
    area: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area as a share of the image's."""
    aspect: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, drawn uniformly; width and height are then swapped with probability 0.5."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling of the crop to `size`, antialiased."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    brightness: Fraction = 0.4
    """Brightness is multiplied by 1 + U(-b, b); jitters come in random order and are never clamped."""
    contrast: Fraction = 0.4
    """Contrast about the mean gray of the current image is multiplied by 1 + U(-c, c)."""
    saturation: Fraction = 0.4
    """Saturation about each pixel's gray is multiplied by 1 + U(-s, s)."""
    lighting: NonNegative = 0.1
    """Standard deviation of the noise along the principal components of ImageNet's colours (AlexNet's lighting)."""

    @model_validator(mode="after")
    def _ranges(self) -> AugmentSection:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError("augment.area must be [low, high] with 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError("augment.aspect must be [low, high] with 0 < low <= high")
        return self


class OptimizerSection(Section):
    """SGD as in the papers."""

    name: Literal["sgd"] = "sgd"
    """Optimizer."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate for the global batch of `train.batch_size`; it is never rescaled."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum, without dampening."""
    nesterov: bool = True
    """Nesterov momentum, as in the papers' code."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty."""
    decay_1d: bool = True
    """Decay vectors (BN scale and shift, biases) too, as the papers' code does; false: matrices and kernels only."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> OptimizerSection:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum above 0; set optimizer.nesterov to false")
        return self


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


ScheduleSection = Annotated[
    StepSchedule | CosineSchedule | PlateauSchedule,
    Field(discriminator="name"),
]


class TrainSection(Section):
    """Length, batch and precision of training."""

    epochs: Positive = 90
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
    seed: Natural = 0
    """Seed of the initial weights, of the order of images and of their augmentation."""

    @model_validator(mode="after")
    def _groups(self) -> TrainSection:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be a multiple of train.micro_batch ({self.micro_batch})"
            )
        if self.micro_batch < 2:
            raise ValueError("train.micro_batch must be at least 2: BN needs two images to a group")
        return self

    @property
    def groups(self) -> int:
        """BN groups in one step."""
        return self.batch_size // self.micro_batch


class EvalSection(Section):
    """Single-crop evaluation: short side to `resize`, centre crop of `crop`."""

    every_epochs: Positive = 1
    """Evaluate after every so many epochs, and at the end."""
    resize: Positive = 256
    """The short side is resized to this many pixels, antialiased."""
    crop: Positive = 224
    """Height and width of the centre crop in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling of the resize."""
    batch_size: Positive = 64
    """Images in one forward pass on one process; does not change the result."""

    @model_validator(mode="after")
    def _crop_fits(self) -> EvalSection:
        if self.crop > self.resize:
            raise ValueError(f"eval.crop ({self.crop}) cannot exceed eval.resize ({self.resize})")
        return self

    @property
    def protocol(self) -> str:
        """The evaluation in one line, as stored beside every result."""
        return f"short side {self.resize} {self.interpolation} antialiased, centre crop {self.crop}, 1 view"


class CheckpointSection(Section):
    """When checkpoints are written. last.pt is always the newest and best.pt the one with the best top-1."""

    every_epochs: Positive = 1
    """Write last.pt after every so many epochs, and at the end."""
    every_steps: Positive | None = None
    """Write last.pt after every so many steps as well; null: only at epochs."""
    keep: Natural = 0
    """How many of the newest epoch checkpoints to keep as epoch_NNNN.pt beside last.pt and best.pt."""


class LogSection(Section):
    """Logging."""

    every: Positive = 20
    """Steps between two lines of the log; the only time the host waits for the device."""
    tensorboard: bool = True
    """Write TensorBoard files as well as log.jsonl."""


class Recipe(Section):
    """A training run: nine sections."""

    model: ModelSection
    """The network."""
    data: DataSection = FolderData()
    """The images."""
    augment: AugmentSection = AugmentSection()
    """Training augmentation."""
    optimizer: OptimizerSection = OptimizerSection()
    """Optimizer."""
    schedule: ScheduleSection = StepSchedule()
    """Learning rate over time."""
    train: TrainSection = TrainSection()
    """Length, batch and precision of training."""
    eval: EvalSection = EvalSection()
    """Evaluation."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When checkpoints are written."""
    log: LogSection = LogSection()
    """Logging."""

    def to_dict(self) -> dict[str, Any]:
        """All sections and keys as plain types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """All sections and keys as YAML that `load_recipe` reads back to an equal recipe."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110))
