"""What training does to its images: in the loader processes, and on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.transforms.auto_augment import AugmentPolicy
from resnext_train.data.transforms.color_transform import ColorTransform
from resnext_train.data.transforms.crop_transforms import CropTransform
from resnext_train.data.transforms.erase import RandomErasing
from resnext_train.data.transforms.mix import Mixing


@dataclass(frozen=True)
class LoaderTransforms:
    """What loader processes do to images, or draw for the device."""

    crop_in: Callable[[int], CropTransform]
    """Returns the crop and flip of an epoch, counted from 0."""
    largest_crop: int
    """Height and width of the largest crop of all epochs."""
    policy: AugmentPolicy | None
    """Operations on crops."""
    color: ColorTransform
    erasing: RandomErasing


@dataclass(frozen=True)
class DeviceTransforms:
    """What is done to a micro-batch on the device, before the network has it."""

    color: ColorTransform
    erasing: RandomErasing
    mixing: Mixing | None = None
    """Mixes pairs of images after that, with their labels."""

    def __call__(self, batch: ImageBatch, dtype: torch.dtype) -> Tensor:
        """Return the normalised images (n, 3, S, S) of a micro-batch as the network takes them."""
        pixels = self.color(batch.images, batch.color_maps, dtype)
        return pixels if batch.erase_boxes is None else self.erasing(pixels, batch.erase_boxes)
