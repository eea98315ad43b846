"""The sections of a recipe about images: data, training augmentation, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from resnext_train.config.value_types import Fraction, Natural, NonNegative, Positive, PositiveTriple, Section, Triple


class _Data(Section):
    workers: Literal["auto"] | Natural = "auto"
    """Loader processes per training process; auto: its share of the cores, but for one that it needs itself."""
    mean: Triple = (0.485, 0.456, 0.406)
    """Mean of R, G, B on a scale of 0 to 1, subtracted from every image."""
    std: PositiveTriple = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B on a scale of 0 to 1, divided by after the mean."""


class FolderData(_Data):
    """Images in folders, root/train/CLASS/... and root/val/CLASS/..., in packs, or torchvision's CIFAR files."""

    source: Literal["folder"] = "folder"
    """Where the images come from."""
    root: str | None = None
    """Folder that holds train/ and val/, each with one folder per class or as packed by resnext-prepare; or CIFAR's
    cifar-10-batches-py or cifar-100-python, as torchvision unpacks them."""
    val_classes: Literal["same", "subset"] = "same"
    """same: a class that only one of train/ and val/ has is an error. subset: val/ may have fewer, as where a model of
    ImageNet-5K is evaluated on the images of ImageNet-1K."""
    only_classes: str | None = None
    """Use only some of the classes: a text file with a class name a line, or a folder with a folder per class; null:
    all."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an image that cannot be read. error: stop, naming it. skip: train on the next readable image in
    its place, leave it out of evaluation, and count it in the log and the summary; stop if over 16 in a row are bad."""


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


class _Augment(Section):
    size: Positive = 224
    """Height and width of a training crop in pixels."""
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
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling to `size`, antialiased."""


class AreaAugment(_Augment):
    """Augmentation of the ResNeXt paper's code: a crop of random area and aspect, flip, colour jitter, lighting."""

    crop: Literal["area"] = "area"
    """How the crop is chosen."""
    area: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area as a share of the image's."""
    aspect: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, drawn uniformly; width and height are then swapped with probability 0.5."""

    @model_validator(mode="after")
    def _ranges(self) -> AreaAugment:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError("augment.area must be [low, high] with 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError("augment.aspect must be [low, high] with 0 < low <= high")
        return self


class ScaleAugment(_Augment):
    """Augmentation of the ResNet paper: the image resized to a random scale, a random square crop of it, flip, colour.

    The crop is cut out of the image and then resized, in one go; the paper resizes first and subtracts a mean image,
    where the mean here is of each channel.
    """

    crop: Literal["scale_jitter"]
    """How the crop is chosen."""
    short_side: tuple[int, int] = (256, 480)
    """Range of the short side in pixels, both ends included, that the image is resized to before it is cropped."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ScaleAugment:
        if not self.size <= self.short_side[0] <= self.short_side[1]:
            raise ValueError("augment.short_side must be [low, high] with augment.size <= low <= high")
        return self


class PadAugment(_Augment):
    """Augmentation of the papers' CIFAR networks: the image padded by its mean colour, a random crop of it, flip.

    An image of another size is first resized, short side to `size`, and centre-cropped.
    """

    crop: Literal["pad"]
    """How the crop is chosen."""
    padding: Natural = 4
    """Pixels added on each of the four sides."""


AugmentSection = Annotated[AreaAugment | ScaleAugment | PadAugment, Field(discriminator="crop")]


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
    classes: str | None = None
    """Restrict evaluation to some of the network's classes: a text file with a class name a line, or a folder with a
    folder per class. Predictions are made among these only and only their images are counted, as in the 1K-way
    evaluation of a model of ImageNet-5K; null: all."""

    @model_validator(mode="after")
    def _crop_fits(self) -> EvalSection:
        if self.crop > self.resize:
            raise ValueError(f"eval.crop ({self.crop}) cannot exceed eval.resize ({self.resize})")
        return self

    @property
    def protocol(self) -> str:
        """The evaluation in one line, as stored beside every result."""
        return f"short side {self.resize} {self.interpolation} antialiased, centre crop {self.crop}, 1 view"
