"""A recipe: its sections, every key with its type, range, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from resnext_train.config.data_sections import AreaAugment, AugmentSection, DataSection, EvalSection, FolderData
from resnext_train.config.train_sections import (
    OptimizerSection,
    ScheduleSection,
    SgdSection,
    StepSchedule,
    TrainSection,
)
from resnext_train.config.value_types import AboveZero, Natural, NonNegative, Positive, Section


class ModelSection(Section):
    """The network."""

    arch: str
    """Name as the papers write it: resnet50, resnext50_32x4d (depth 50, cardinality 32, base width 4), plain34,
    preact_resnet200, resnet110 (CIFAR), ...; or torchvision/NAME, or timm/NAME."""
    num_classes: Literal["auto"] | Positive = "auto"
    """Outputs of the classifier; auto: as many as the data has classes. A number that disagrees is an error."""
    weights: str | None = None
    """File of weights to start from (fine-tuning): of this tool, torchvision, timm, pycls or a CIFAR port. A
    classifier of another number of classes is left out, and starts anew."""
    depth: Positive | None = None
    """Depth in place of the one in `arch`."""
    blocks: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=4)] | None = None
    """Blocks in each stage, for a depth that has no customary split: four stages as for ImageNet, or three as for
    CIFAR; null: as `arch` says."""
    cardinality: Positive | None = None
    """Groups of a bottleneck's 3×3 convolution (C); null: as `arch` says."""
    base_width: Positive | None = None
    """Width of one group in the first stage (d); null: as `arch` says."""
    width: AboveZero = 1.0
    """Factor on the channels of the stem and of all stages."""
    shortcut: Literal["A", "B", "C"] | None = None
    """Shortcuts of the ResNet paper, section 4.1. A: no parameters, zeros for new channels. B: a projection where the
    shape changes. C: projections everywhere. Null: B, and A in CIFAR networks of two-layer blocks."""
    form: Literal["a", "b", "c"] = "c"
    """Which of the three equivalent forms of the ResNeXt paper's Figure 3 computes a bottleneck. a: paths summed; b:
    paths concatenated; c: grouped convolution."""
    stem: Literal["imagenet", "cifar"] | None = None
    """imagenet: 7×7 convolution of stride 2 and max pooling; cifar: 3×3 convolution of stride 1. Null: as suits the
    number of stages."""
    residual: bool | None = None
    """Whether blocks have shortcuts; null: as `arch` says (plainDEPTH has none)."""
    auxiliary_weight: NonNegative | None = None
    """Weight of each auxiliary classifier's loss in training; null: the network's own, 0.3 for torchvision/googlenet
    and 0.4 for torchvision/inception_v3."""


class CheckpointSection(Section):
    """When checkpoints are written. last.pt is always the newest, previous.pt the one before, and best.pt the one with
    the best top-1."""

    every_epochs: Positive = 1
    """Write last.pt after every so many epochs, and at the end."""
    every_steps: Positive | None = None
    """Write last.pt after every so many steps as well; null: not by steps."""
    every_minutes: AboveZero | None = 30.0
    """Write last.pt as well when that many minutes have passed without; null: not by time."""
    keep: Natural = 0
    """How many of the newest epoch checkpoints to keep as epoch_NNNN.pt beside the others."""
    max_failures: Natural = 3
    """Checkpoints in a row that may fail to be written, as on a full disk, while training goes on; one more ends it."""


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
    augment: AugmentSection = AreaAugment()
    """Training augmentation."""
    optimizer: OptimizerSection = SgdSection()
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
