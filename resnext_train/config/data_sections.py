"""Recipe sections about images: data, evaluation."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from resnext_train.config.value_types import (
    BatchSize,
    Classes,
    Images,
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
    resize: Pixels | None = 256
    """Pixels of the short side after the antialiased resize. null: by `crop_ratio`, as where only that is set."""
    crop_ratio: Annotated[float, Field(ge=0.05, le=1)] | None = None
    """Part of the resized image that the crop takes: the short side gets floor(crop / crop_ratio) pixels. Takes the
    place of a weaker layer's `resize`, which becomes null, and a stronger one's `resize` the place of this. null: not
    used."""
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
        if (self.resize is None) == (self.crop_ratio is None):
            if self.resize is None:
                raise ValueError("eval.resize and eval.crop_ratio are both null; set one of them")
            raise ValueError(
                f"eval.resize ({self.resize}) and eval.crop_ratio ({self.crop_ratio:g}) exclude each other; "
                "leave one out"
            )
        if self.protocol not in ("multi_scale", "full") and self.crop > self.short_side:
            raise ValueError(f"eval.crop ({self.crop}) cannot exceed eval.resize ({self.resize})")
        return self

    @model_validator(mode="after")
    def _sets_have_their_own_curves(self) -> EvalSection:
        if taken := sorted({"train", "val"} & self.also.keys()):
            raise ValueError(f"eval.also: {taken[0]} is the name of a split; choose another one")
        return self

    @property
    def short_side(self) -> int:
        """Pixels of the short side after the resize, by `resize` or `crop_ratio`."""
        if self.crop_ratio is not None:
            return math.floor(self.crop / self.crop_ratio)
        assert self.resize is not None
        return self.resize

    @property
    def description(self) -> str:
        """One line that describes the protocol, stored with every result."""
        sides = ", ".join(map(str, self.scales)) if self.protocol == "multi_scale" else str(self.short_side)
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
