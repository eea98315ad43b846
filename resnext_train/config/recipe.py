"""The recipe and its sections: every key with its type, range, default and meaning."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from resnext_train.config.augment_sections import (
    AreaAugment,
    AugmentSection,
    AutoAugmentSection,
    EraseSection,
    MixSection,
    NoAutoAugment,
)
from resnext_train.config.data_sections import DataSection, EvalSection, FolderData
from resnext_train.config.log_section import LogSection
from resnext_train.config.optimizer_sections import OptimizerSection, ScheduleSection, SgdSection, StepSchedule
from resnext_train.config.train_sections import EmaSection, TrainSection
from resnext_train.config.value_types import (
    AboveZero,
    Channels,
    Classes,
    Layers,
    Minutes,
    Natural,
    NonNegative,
    Positive,
    Section,
)


class ModelSection(Section):
    """The network."""

    arch: str
    """Name as in the papers: resnet50, resnext50_32x4d (depth 50, cardinality 32, base width 4), plain34,
    preact_resnet200, resnet110 (CIFAR), ...; or torchvision/NAME, or timm/NAME."""
    num_classes: Literal["auto"] | Classes = "auto"
    """Outputs of the classifier; auto: as many as the data has classes. Any other number is an error."""
    weights: str | None = None
    """File of initial weights for fine-tuning, from this tool, torchvision, timm, pycls or a CIFAR port; or a run
    folder, whose best.pt is taken; null: random weights. A classifier with another number of classes is not loaded but
    initialised at random."""
    depth: Layers | None = None
    """Number of layers; null: as in `arch`."""
    blocks: Annotated[tuple[Layers, ...], Field(min_length=3, max_length=4)] | None = None
    """Blocks per stage: four stages (ImageNet) or three (CIFAR); null: the usual ones for the depth."""
    cardinality: Channels | None = None
    """Groups of a bottleneck's 3×3 convolution (C); null: as in `arch`."""
    base_width: Channels | None = None
    """Width of one group in the first stage (d); null: as in `arch`."""
    width: AboveZero = 1.0
    """Factor on the channels of the stem and all stages."""
    shortcut: Literal["A", "B", "C"] | None = None
    """Shortcut type (ResNet paper, section 4.1). A: no parameters, zeros for new channels. B: projection where the
    shape changes. C: projections everywhere. null: B, or A in CIFAR networks with two-layer blocks."""
    form: Literal["a", "b", "c"] = "c"
    """Form of a bottleneck, one of three equivalent ones (ResNeXt paper, Figure 3). a: paths summed. b: paths
    concatenated. c: grouped convolution."""
    stem: Literal["imagenet", "cifar"] | None = None
    """First layers. imagenet: 7×7 convolution of stride 2 and max pooling. cifar: 3×3 convolution of stride 1. null:
    imagenet for four stages, cifar for three."""
    residual: bool | None = None
    """Whether blocks have shortcuts; null: as in `arch` (plainDEPTH has none)."""
    blur_pool: bool = False
    """Blur the input of every strided convolution of 16 and more channels with [1, 2, 1] in both directions (BlurPool,
    arXiv 1904.11486, as FFCV places it)."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which a training image skips the last block's convolutions; it grows linearly from 0 in the
    first block (arXiv 1603.09382, as in timm)."""
    zero_gamma: bool = False
    """Start the scale of the last BN in each block at 0 (arXiv 1706.02677, section 5.1), not at 1 as in the papers."""
    conv_init: Literal["fan_out", "fan_in"] = "fan_out"
    """What the normal distribution of a convolution's first weights is scaled by."""
    bn_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Part of a step's statistics in BatchNorm's running ones."""
    bn_epsilon: AboveZero = 1e-5
    """Added to the variance in BatchNorm."""
    auxiliary_weight: NonNegative | None = None
    """Weight of each auxiliary classifier's loss in training; null: 0.3 for torchvision/googlenet and 0.4 for
    torchvision/inception_v3."""


class CheckpointSection(Section):
    """When checkpoints are written. last.pt is the newest, previous.pt the one before, best.pt the one with the best
    top-1 accuracy."""

    every_epochs: Positive = 1
    """Epochs between saves of last.pt; the end of the run is always saved. Another save before each evaluation is
    replaced by the next one."""
    every_steps: Positive | None = None
    """Steps between additional saves of last.pt; null: none."""
    every_minutes: Minutes | None = 30.0
    """Minutes without a save after which last.pt is saved; null: no limit."""
    keep: Natural = 0
    """Number of newest epoch checkpoints kept as epoch_NNNN.pt besides the other files; 0: none."""
    max_failures: Natural = 3
    """Failed saves in a row, as on a full disk, that are tolerated; one more ends the run."""

    @property
    def every_seconds(self) -> float | None:
        """`every_minutes` in seconds."""
        return None if self.every_minutes is None else 60 * self.every_minutes


class Recipe(Section):
    """A training run."""

    model: ModelSection
    """The network."""
    data: DataSection = FolderData()
    """The images."""
    augment: AugmentSection = AreaAugment()
    """Training augmentation: the crop and its colours."""
    auto_augment: AutoAugmentSection = NoAutoAugment()
    """Operations on crops, before their colours are jittered."""
    erase: EraseSection = EraseSection()
    """Random erasing."""
    mix: MixSection = MixSection()
    """Mixup and CutMix."""
    optimizer: OptimizerSection = SgdSection()
    """Optimizer."""
    schedule: ScheduleSection = StepSchedule()
    """Learning rate over time."""
    train: TrainSection = TrainSection()
    """Length, batch and precision of training."""
    ema: EmaSection = EmaSection()
    """An average of the weights."""
    eval: EvalSection = EvalSection()
    """Evaluation."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When checkpoints are written."""
    log: LogSection = LogSection()
    """Logging."""

    @classmethod
    def load(cls, name: str | os.PathLike[str], *overrides: str) -> Recipe:
        """Return the recipe of a name, such as resnext50_32x4d, or of a path, with `section.key=value` overrides.

        >>> Recipe.load("smoke", "train.epochs=2").train.epochs
        2

        Raises:
            InputError: there is none, or it or an override has a mistake; with file, line and key.
        """
        loader: Any = import_module("resnext_train.config.recipe_loader")  # which imports this module
        recipe: Recipe = loader.load_recipe(os.fspath(name), overrides)
        return recipe

    def at_full_size(self) -> Recipe:
        """Return the recipe with training crops of augment.size in all epochs."""
        return self.model_copy(update={"augment": self.augment.model_copy(update={"start_size": None, "growth": None})})

    def to_dict(self) -> dict[str, Any]:
        """Return all sections and keys as plain types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return YAML that `load_recipe` reads back to an equal recipe."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110))
