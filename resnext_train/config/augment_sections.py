"""Recipe sections about training augmentation: the crop and its colours, and what else is done to images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from resnext_train.config.value_types import Fraction, NonNegative, Pixels, RatioRange, Section, ShareRange


class _Augment(Section):
    size: Pixels = 224
    """Height and width of a training crop in pixels. Where crops grow from `start_size`, it is what they grow to."""
    start_size: Pixels | None = None
    """Height and width of the first epochs' crops, from which they grow to `size`; null: always `size`."""
    growth: tuple[NonNegative, NonNegative] | None = None
    """Two epochs, counted from 0: up to the first, crops have `start_size`; from the second on, `size`; between them
    the size grows linearly, rounded to multiples of 32 (progressive resizing, as in FFCV's get_resolution). null: crops
    do not grow."""
    repeats: Annotated[int, Field(gt=0, le=1000)] = 1
    """How often an epoch sees an image, each time with another augmentation; an epoch has as many images as the data,
    and so sees fewer different ones (repeated augmentation, arXiv 1902.05509)."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    brightness: Fraction = 0.4
    """Strength b: brightness is multiplied by 1 + U(-b, b). The three jitters run in random order, without clamping."""
    contrast: Fraction = 0.4
    """Strength c: contrast to the mean gray of the current image is multiplied by 1 + U(-c, c)."""
    saturation: Fraction = 0.4
    """Strength s: saturation, the contrast to each pixel's gray, is multiplied by 1 + U(-s, s)."""
    lighting: NonNegative = 0.1
    """Standard deviation of AlexNet's lighting noise along the principal components of ImageNet's colours."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Antialiased resampling of the crop to `size`."""

    @model_validator(mode="after")
    def _growth_fits(self) -> _Augment:
        if (self.start_size is None) != (self.growth is None):
            raise ValueError("augment.start_size and augment.growth need each other; set both, or set both to null")
        if self.start_size and self.start_size > self.size:
            raise ValueError(f"augment.start_size ({self.start_size}) cannot exceed augment.size ({self.size})")
        if self.growth and self.growth[0] >= self.growth[1]:
            raise ValueError("augment.growth must be [first, last] with first < last")
        return self

    def size_in(self, epoch: int) -> int:
        """Return the height and width of the crops of an epoch, counted from 0."""
        if self.start_size is None or self.growth is None or epoch >= self.growth[1]:
            return self.size
        first, last = self.growth
        if epoch <= first:
            return self.start_size
        grown = (self.size - self.start_size) / (last - first) * (epoch - first) + self.start_size
        # FFCV rounds beyond the two sizes where they are no multiples of 32.
        return min(max(32 * round(grown / 32), self.start_size), self.size)

    def sizes(self, epochs: int) -> dict[int, int]:
        """Return the sizes of the crops of `epochs` epochs, ascending, each with its first epoch, counted from 0."""
        first: dict[int, int] = {}
        for epoch in range(epochs if self.growth else 1):
            first.setdefault(self.size_in(epoch), epoch)
            if self.size in first:
                break
        return first


class AreaAugment(_Augment):
    """Augmentation of the ResNeXt paper's code: a crop of random area and aspect, flip, colour jitter, lighting."""

    crop: Literal["area"] = "area"
    """Kind of crop."""
    area: ShareRange = (0.08, 1.0)
    """Range of the crop's area as a fraction of the image's."""
    aspect: RatioRange = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, width to height."""
    aspect_law: Literal["uniform", "log"] = "uniform"
    """How the aspect ratio is drawn. uniform: uniformly, then width and height swap with probability 0.5, and after ten
    boxes that do not fit comes the largest square, as in the papers' code. log: its logarithm uniformly, without a
    swap, and the last resort is the largest box of an aspect in the range, as in torchvision's RandomResizedCrop."""


class ScaleAugment(_Augment):
    """Augmentation of the ResNet paper: resize to a random scale, random square crop, flip, colour jitter.

    Crop and resize are one step here, where the paper resizes first. The mean subtracted is per channel, where the
    paper subtracts a mean image. Crops that grow show less of the image while they are smaller.
    """

    crop: Literal["scale_jitter"]
    """Kind of crop."""
    short_side: tuple[Pixels, Pixels] = (256, 480)
    """Range of the image's short side in pixels, both ends included, to which it is resized before the crop."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ScaleAugment:
        if not self.size <= self.short_side[0] <= self.short_side[1]:
            raise ValueError("augment.short_side must be [low, high] with augment.size <= low <= high")
        return self


class PadAugment(_Augment):
    """Augmentation of the papers' CIFAR networks: pad with the mean colour, random crop, flip.

    An image of another size is first resized (short side to `size`) and centre-cropped.
    """

    crop: Literal["pad"]
    """Kind of crop."""
    padding: Annotated[int, Field(ge=0, le=10_000)] = 4
    """Pixels added on each of the four sides."""


AugmentSection = Annotated[AreaAugment | ScaleAugment | PadAugment, Field(discriminator="crop")]


class _AutoAugment(Section):
    pass


class NoAutoAugment(_AutoAugment):
    """No operations on crops."""

    name: Literal["none"] = "none"
    """Kind of operations."""


class RandAugment(_AutoAugment):
    """RandAugment as torchvision defines it (transforms.RandAugment): operations of one magnitude, black fill."""

    name: Literal["randaugment"]
    """Kind of operations."""
    num_ops: Annotated[int, Field(gt=0, le=16)] = 2
    """Operations on a crop, one after another."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of the operations, from 0 to 30."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling of rotations, shears and translations."""


class TimmRandAugment(_AutoAugment):
    """RandAugment as timm defines it (rand-mM-nN-mstdS-inc1): random magnitudes, operations left out at random."""

    name: Literal["timm_randaugment"]
    """Kind of operations."""
    num_ops: Annotated[int, Field(gt=0, le=16)] = 2
    """Operations on a crop, one after another, of which each is left out with 1 - `probability`."""
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    """Mean strength of the operations, from 0 to 10."""
    magnitude_std: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Standard deviation of the strength, which is limited to 0 to 10."""
    increasing: bool = True
    """Whether all operations become more severe with the strength (inc1), where some of the original ones become less
    so."""
    probability: Fraction = 0.5
    """Probability that an operation is done."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "random"
    """Resampling of rotations, shears and translations; random: one of the two each time."""


class TrivialAugmentWide(_AutoAugment):
    """TrivialAugment with the wide ranges, as torchvision defines it (arXiv 2103.10158): one operation, black fill."""

    name: Literal["trivial_augment_wide"]
    """Kind of operations."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling of rotations, shears and translations."""


AutoAugmentSection = Annotated[
    NoAutoAugment | RandAugment | TimmRandAugment | TrivialAugmentWide, Field(discriminator="name")
]


class EraseSection(Section):
    """Random erasing: boxes of the normalised crop are overwritten (arXiv 1708.04896)."""

    probability: Fraction = 0.0
    """Probability that boxes are erased from an image."""
    value: Literal["constant", "pixel"] = "constant"
    """What is written. constant: 0, the data's mean colour. pixel: a normal random number for each pixel and colour."""
    count: Annotated[int, Field(gt=0, le=16)] = 1
    """Most boxes in an image. Their number is drawn from 1 to it, and divides the area that each of them gets."""
    area: ShareRange = (0.02, 1 / 3)
    """Range of the area of an image's only box as a fraction of the crop's."""
    aspect: RatioRange = (0.3, 1 / 0.3)
    """Range of a box's aspect ratio, height to width, whose logarithm is drawn uniformly."""


class MixSection(Section):
    """Mixed pairs of images within a micro-batch: one ratio, drawn from Beta(alpha, alpha), for all of it.

    The loss is that of both labels by their parts. In training an image counts as right by the label with the larger
    part, so that accuracy is low there.
    """

    mixup: NonNegative = 0.0
    """Alpha of mixup, which blends whole images (arXiv 1710.09412); 0: none."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix, which puts a box of one image into the other (arXiv 1905.04899); 0: none."""
    switch: Fraction = 0.5
    """Where both are used: probability that a micro-batch gets CutMix, and not mixup."""
