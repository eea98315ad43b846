"""From the recipe's data, augment and eval sections to sources and loaders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from resnext_train.config import DataSection, FolderData, PadAugment, Recipe, SyntheticData
from resnext_train.data.cifar import CifarImages, find_cifar
from resnext_train.data.folder import ImageFolder
from resnext_train.data.loader import (
    EvalGroups,
    Group,
    LoaderOptions,
    Source,
    TrainGroups,
    Unreadable,
    groups_from,
    worker_count,
)
from resnext_train.data.photometric import Photometric
from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, deal
from resnext_train.data.synthetic import SyntheticImages
from resnext_train.data.transforms import Augmentation, EvalTransform, PadTransform, TrainTransform
from resnext_train.distributed import Process
from resnext_train.errors import InputError


@dataclass(frozen=True)
class Splits:
    """Training and validation images of the same classes."""

    train: Source
    val: Source

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.train.classes


def build_splits(section: DataSection) -> Splits:
    """Both splits of a recipe's data.

    Raises:
        InputError: folders that are missing or empty, damaged files, or classes that differ between the splits.
    """
    if isinstance(section, SyntheticData):
        return Splits(
            SyntheticImages(section.classes, section.train_images, section.size, "train"),
            SyntheticImages(section.classes, section.val_images, section.size, "val"),
        )
    root = _root(section)
    if cifar := find_cifar(root):
        return Splits(CifarImages(cifar, root, "train"), CifarImages(cifar, root, "val"))
    splits = Splits(ImageFolder(root / "train"), ImageFolder(root / "val"))
    train, val = set(splits.train.classes), set(splits.val.classes)
    if train != val:
        only = {"train": sorted(train - val), "val": sorted(val - train)}
        told = "; ".join(f"only in {k}: {_some(v)}" for k, v in only.items() if v)
        raise InputError(f"train and val under {root} hold different classes ({told}); they must be the same")
    return splits


def build_val(section: DataSection) -> Source:
    """The images to evaluate on: CIFAR's test images, root/val, or root itself if that holds the class folders.

    Raises:
        InputError: folders that are missing or empty, or damaged files.
    """
    if isinstance(section, SyntheticData):
        return SyntheticImages(section.classes, section.val_images, section.size, "val")
    root = _root(section)
    if cifar := find_cifar(root):
        return CifarImages(cifar, root, "val")
    return ImageFolder(root / "val" if (root / "val").is_dir() else root)


def _root(section: FolderData) -> Path:
    if section.root is None:
        raise InputError("data.root is not set; add data.root=/path/to/images (a folder that holds train/ and val/)")
    return Path(section.root).expanduser()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def build_photometric(recipe: Recipe) -> Photometric:
    """The colour step and normalisation of a recipe."""
    augment, data = recipe.augment, recipe.data
    return Photometric(augment.brightness, augment.contrast, augment.saturation, augment.lighting, data.mean, data.std)


def build_augmentation(recipe: Recipe) -> Augmentation:
    """The crop and flip of a recipe."""
    a = recipe.augment
    if isinstance(a, PadAugment):
        r, g, b = (min(max(round(255 * mean), 0), 255) for mean in recipe.data.mean)
        return PadTransform(a.size, a.padding, (r, g, b), a.interpolation, a.flip)
    return TrainTransform(a.size, a.area, a.aspect, a.interpolation, a.flip)


def build_train_loader(
    recipe: Recipe, source: Source, plan: StepPlan, process: Process, start: int, stop: int
) -> DataLoader[Group | Unreadable]:
    """This process's groups of steps `start` to `stop`."""
    dataset = TrainGroups(source, build_augmentation(recipe), build_photometric(recipe), recipe.train.seed)
    share = deal(plan.groups, process.world, process.rank)
    sampler = TrainSampler(plan, recipe.train.seed, share, start, stop)
    return groups_from(dataset, sampler, _options(recipe, process))


def build_eval_loader(
    recipe: Recipe, source: Source, classes: tuple[str, ...], process: Process
) -> DataLoader[Group | Unreadable]:
    """This process's blocks of `source`, labelled by the position of each class's name in `classes`.

    Raises:
        InputError: a class of `source` is not among `classes`.
    """
    unknown = [name for name in source.classes if name not in set(classes)]
    if unknown:
        raise InputError(f"the images have classes that the network does not know: {_some(unknown)}")
    position = {name: i for i, name in enumerate(classes)}
    label_of = np.array([position[name] for name in source.classes], np.int64)
    e = recipe.eval
    dataset = EvalGroups(source, EvalTransform(e.resize, e.crop, e.interpolation), label_of)
    sampler = EvalSampler(len(source), e.batch_size, process.world, process.rank)
    return groups_from(dataset, sampler, _options(recipe, process))


def _options(recipe: Recipe, process: Process) -> LoaderOptions:
    return LoaderOptions(worker_count(recipe.data.workers, process.local_world), process.device.type == "cuda")
