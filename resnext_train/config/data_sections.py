"""Recipe sections about images: data, training augmentation, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from resnext_train.config.value_types import (
    AboveZero,
    BatchSize,
    Classes,
    Fraction,
    Images,
    NonNegative,
    Pixels,
    Positive,
    PositiveTriple,
    Section,
    Triple,
    Workers,
)


class _Data(Section):
    workers: Literal["auto"] | Workers = "auto"
    """Loader processes per training process; auto: the cores per training process minus one, at least 1."""
    mean: Triple = (0.485, 0.456, 0.406)
    """Mean of R, G, B, scale 0 to 1, subtracted from every image."""
    std: PositiveTriple = (0.229, 0.224, 0.225)
    """Standard deviation of R, G, B, scale 0 to 1; divides every image after the mean is subtracted."""
    titles: str | None = None
    """File of the classes' human names: lines of a class name and its title, or a JSON object. null: words.txt,
    LOC_synset_mapping.txt or titles.txt beside the data, else ImageNet's own list."""


class FolderData(_Data):
    """Images in folders, root/train/CLASS/... and root/val/CLASS/..., in packs, or torchvision's CIFAR files."""

    source: Literal["folder"] = "folder"
    """Source of the images."""
    root: str | None = None
    """Folder with train/ and val/, each with one folder per class or packed by resnext prepare; or with torchvision's
    unpacked cifar-10-batches-py or cifar-100-python. null: not set, an error where images are needed."""
    val_classes: Literal["same", "subset"] = "same"
    """same: train/ and val/ must have the same classes. subset: val/ may have fewer, as when a model of ImageNet-5K is
    evaluated on the images of ImageNet-1K."""
    only_classes: str | None = None
    """Use only these classes: a text file with one class name per line, or a folder with one folder per class. null:
    all classes."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with an unreadable image. error: stop and name it. skip: train on the next readable image instead,
    leave it out of evaluation, and count it in the log and summary; stop after more than 16 in a row."""


class SyntheticData(_Data):
    """Generated images without files: coloured gratings, one colour and frequency per class; learnable."""

    source: Literal["synthetic"]
    """Source of the images."""
    classes: Annotated[Classes, Field(ge=2)] = 10
    """Number of classes."""
    train_images: Images = 2000
    """Images in the training split."""
    val_images: Images = 500
    """Images in the validation split."""
    size: Annotated[Pixels, Field(le=4096)] = 256
    """Height and width of an image in pixels."""


DataSection = Annotated[FolderData | SyntheticData, Field(discriminator="source")]


class _Augment(Section):
    size: Pixels = 224
    """Height and width of a training crop in pixels."""
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


class AreaAugment(_Augment):
    """Augmentation of the ResNeXt paper's code: a crop of random area and aspect, flip, colour jitter, lighting."""

    crop: Literal["area"] = "area"
    """Kind of crop."""
    area: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Range of the crop's area as a fraction of the image's."""
    aspect: tuple[AboveZero, AboveZero] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, sampled uniformly; then width and height swap with probability 0.5."""

    @model_validator(mode="after")
    def _ranges(self) -> AreaAugment:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError("augment.area must be [low, high] with 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError("augment.aspect must be [low, high] with 0 < low <= high")
        return self


class ScaleAugment(_Augment):
    """Augmentation of the ResNet paper: resize to a random scale, random square crop, flip, colour jitter.

    Crop and resize are one step here, where the paper resizes first. The mean subtracted is per channel, where the
    paper subtracts a mean image.
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


SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
"""Name of a set of images."""


class EvalSection(Section):
    """Evaluation: which views of an image the network sees, and how their scores make one."""

    every_epochs: Positive = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    protocol: Literal["center", "center_flip", "ten_crop", "multi_scale", "full"] = "center"
    """Views of an image, whose scores are averaged. center: the centre crop, after the short side is resized to
    `resize`. center_flip: it and its mirror image. ten_crop: centre and corners, of the image and of its mirror image.
    multi_scale: the whole image and its mirror image with the short side at each of `scales`. full: the whole image at
    `resize`."""
    resize: Pixels = 256
    """Pixels of the short side after the antialiased resize."""
    crop: Pixels = 224
    """Height and width of a crop in pixels."""
    scales: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (224, 256, 384, 480, 640)
    """Short sides of multi_scale in pixels (ResNet paper, section 3.4)."""
    average: Literal["softmax", "logits"] = "softmax"
    """What is averaged over views, and over the networks of an ensemble."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Resampling method of the resize."""
    batch_size: BatchSize = 64
    """Images of crop × crop pixels per forward pass and process; of larger views, as many as have no more pixels. Does
    not change the result."""
    classes: str | None = None
    """Evaluate only these classes of the network: a text file with one class name per line, or a folder with one folder
    per class. Predictions are made among them and only their images count, as in the 1K-way evaluation of a model of
    ImageNet-5K. null: all classes."""
    labels: str | None = None
    """Several labels per image, as of ImageNet-ReaL: a prediction is correct if it is among them, and images without
    any do not count. A JSON file (ReaL's own, or an object from image names to lists of classes), or imagenet-real for
    the one that comes with timm. null: the data's own label."""
    also: dict[SetName, str] = Field(default_factory=dict)
    """More sets of images, by name, that training evaluates and logs at the same times: folders or packs like
    data.root, with classes of the network. They are evaluated among all classes and with their own labels."""

    @model_validator(mode="after")
    def _crop_fits(self) -> EvalSection:
        if self.protocol not in ("multi_scale", "full") and self.crop > self.resize:
            raise ValueError(f"eval.crop ({self.crop}) cannot exceed eval.resize ({self.resize})")
        return self

    @model_validator(mode="after")
    def _sets_have_their_own_curves(self) -> EvalSection:
        if taken := sorted({"train", "val"} & self.also.keys()):
            raise ValueError(f"eval.also: {taken[0]} is the name of a split; choose another one")
        return self

    @property
    def description(self) -> str:
        """One line that describes the protocol, stored with every result."""
        sides = ", ".join(map(str, self.scales)) if self.protocol == "multi_scale" else str(self.resize)
        shown = {
            "center": f"centre crop {self.crop}, 1 view",
            "center_flip": f"centre crop {self.crop} and its mirror image, 2 views",
            "ten_crop": f"centre and corner crops {self.crop} of it and its mirror image, 10 views",
            "multi_scale": f"whole image and its mirror image, {2 * len(self.scales)} views",
            "full": "whole image, 1 view",
        }[self.protocol]
        several = "s" if len(sides.split()) > 1 else ""
        averaged = "" if shown.endswith(" 1 view") else f", {self.average} averaged"
        return f"short side{several} {sides} {self.interpolation} antialiased, {shown}{averaged}"
