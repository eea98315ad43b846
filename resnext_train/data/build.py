"""From the recipe's data, augment and eval sections to sources and loaders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from resnext_train.config import (
    DataSection,
    EvalSection,
    FolderData,
    PadAugment,
    Recipe,
    ScaleAugment,
    SyntheticData,
)
from resnext_train.data.cifar import CifarImages, find_cifar
from resnext_train.data.classes import ClassImages, read_class_names
from resnext_train.data.loader import (
    EvalGroups,
    Group,
    LoaderOptions,
    TrainGroups,
    Unreadable,
    groups_from,
)
from resnext_train.data.packed import open_images
from resnext_train.data.photometric import Photometric
from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, deal
from resnext_train.data.source import Source
from resnext_train.data.synthetic import SyntheticImages
from resnext_train.data.transforms import AreaTransform, EvalTransform, PadTransform, ScaleTransform, Transform
from resnext_train.data.workers import check_shared_memory, worker_count
from resnext_train.distributed import Process
from resnext_train.errors import InputError


@dataclass(frozen=True)
class Splits:
    """Training images, and validation images of the same classes or of some of them."""

    train: Source
    val: Source

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.train.classes

    @property
    def storage(self) -> dict[str, str]:
        """How the images of each split are kept, for people."""
        return {"train": self.train.storage.text, "val": self.val.storage.text}


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
    train, val = (_restrict(open_images(root / split), section) for split in ("train", "val"))
    splits = Splits(train, val)
    _check_classes(splits, root, subset=section.val_classes == "subset")
    return splits


def _restrict(source: Source, section: FolderData) -> Source:
    """The images of the classes that data.only_classes names, if it does."""
    if section.only_classes is None:
        return source
    path = Path(section.only_classes).expanduser()
    names = read_class_names(path, "data.only_classes")
    held = set(source.classes).intersection(names)
    if (unknown := _missing(names, held)) and section.val_classes == "same":
        raise InputError(f"data.only_classes: {path} names classes that the data does not have: {_some(unknown)}")
    if not held:
        raise InputError(f"data.only_classes: {path} names no class of the data")
    return ClassImages(source, tuple(sorted(held)))


def _check_classes(splits: Splits, root: Path, subset: bool) -> None:
    """Refuse splits whose classes differ, but for those that val may lack if it may be a `subset`."""
    train, val = set(splits.train.classes), set(splits.val.classes)
    only = {"train": [] if subset else sorted(train - val), "val": sorted(val - train)}
    told = "; ".join(f"only in {k}: {_some(v)}" for k, v in only.items() if v)
    if only["val"]:
        wanted = "val may hold no others than train" if subset else "they must be the same"
        raise InputError(f"train and val under {root} hold different classes ({told}); {wanted}")
    if only["train"]:
        raise InputError(
            f"train and val under {root} hold different classes ({told}); they must be the same, "
            "unless data.val_classes=subset lets val lack some"
        )


def build_train(section: DataSection) -> Source:
    """The images to train on alone: CIFAR's training images, root/train, or root itself as in `build_val`.

    Raises:
        InputError: folders that are missing or empty, or damaged files.
    """
    return _build_split(section, "train")


def build_val(section: DataSection) -> Source:
    """The images to evaluate on: CIFAR's test images, root/val, or root itself if it is a pack or holds class folders.

    Raises:
        InputError: folders that are missing or empty, or damaged files.
    """
    return _build_split(section, "val")


def _build_split(section: DataSection, split: Literal["train", "val"]) -> Source:
    if isinstance(section, SyntheticData):
        images = section.train_images if split == "train" else section.val_images
        return SyntheticImages(section.classes, images, section.size, split)
    root = _root(section)
    if cifar := find_cifar(root):
        return CifarImages(cifar, root, split)
    return _restrict(open_images(split_folder(section, split)), section)


def split_folder(section: FolderData, split: Literal["train", "val"]) -> Path:
    """Where a split's images are: root/train or root/val, or root itself where it holds no such folder."""
    root = _root(section)
    return root / split if (root / split).is_dir() else root


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


def build_augmentation(recipe: Recipe) -> Transform:
    """The crop and flip of a recipe."""
    a = recipe.augment
    if isinstance(a, PadAugment):
        r, g, b = (min(max(round(255 * mean), 0), 255) for mean in recipe.data.mean)
        return PadTransform(a.size, a.padding, (r, g, b), a.interpolation, a.flip)
    if isinstance(a, ScaleAugment):
        return ScaleTransform(a.size, a.interpolation, a.flip, a.short_side)
    return AreaTransform(a.size, a.interpolation, a.flip, a.area, a.aspect)


def build_train_loader(
    recipe: Recipe, source: Source, plan: StepPlan, process: Process, start: int, stop: int
) -> DataLoader[Group | Unreadable]:
    """This process's groups of steps `start` to `stop`."""
    transform, photometric = build_augmentation(recipe), build_photometric(recipe)
    largest = -(-plan.batch_size // plan.groups)
    dataset = TrainGroups(source, transform, photometric, recipe.train.seed, largest, _skips(recipe))
    share = deal(plan.groups, process.world, process.rank)
    sampler = TrainSampler(plan, recipe.train.seed, share, start, stop)
    return groups_from(dataset, sampler, _options(recipe, process))


@dataclass(frozen=True)
class Evaluation:
    """The images to count, labelled by position among the classes that predictions are made among."""

    images: Source
    outputs: Tensor | None
    """The network's outputs for those classes, int64, ascending; None: all outputs."""
    protocol: str
    """What is done, in one line."""


def build_evaluation(section: EvalSection, source: Source, classes: tuple[str, ...]) -> Evaluation:
    """What an eval section means for `source` and for a network whose outputs are `classes`.

    Raises:
        InputError: a class that counts is not among `classes`, no image counts, or eval.classes cannot be used.
    """
    if section.classes is not None:
        return _restricted(section, Path(section.classes).expanduser(), source, classes)
    if unknown := _missing(source.classes, classes):
        raise InputError(f"the images have classes that the network does not know: {_some(unknown)}")
    return Evaluation(ClassImages(source, classes), None, section.protocol)


def _restricted(section: EvalSection, path: Path, source: Source, classes: tuple[str, ...]) -> Evaluation:
    """Evaluation on the classes that the file or folder `path` names, and among these."""
    listed = read_class_names(path, "eval.classes")
    if unknown := _missing(listed, classes):
        raise InputError(f"eval.classes: {path} names classes that the network does not know: {_some(unknown)}")
    outputs = torch.tensor([classes.index(name) for name in listed]).sort().values
    images = ClassImages(source, tuple(classes[i] for i in outputs.tolist()))
    if not len(images):
        raise InputError(f"eval.classes: the data holds no image of a class that {path} names")
    return Evaluation(images, outputs, f"{section.protocol}, among {len(outputs)} of {len(classes)} classes")


def _missing(names: Iterable[str], known: Iterable[str]) -> list[str]:
    among = set(known)
    return [name for name in names if name not in among]


def build_eval_loader(recipe: Recipe, images: Source, process: Process) -> DataLoader[Group | Unreadable]:
    """This process's blocks of `images`."""
    e = recipe.eval
    dataset = EvalGroups(images, EvalTransform(e.resize, e.crop, e.interpolation), e.batch_size, _skips(recipe))
    sampler = EvalSampler(len(images), e.batch_size, process.world, process.rank)
    return groups_from(dataset, sampler, _options(recipe, process))


def check_memory(recipe: Recipe, process: Process, train: bool) -> None:
    """See that the loader processes on this host can hand over their groups, of training too or of evaluation alone.

    Raises:
        InputError: /dev/shm is too small for them.
    """
    workers = worker_count(recipe.data.workers, process.local_world) * process.local_world
    groups = recipe.eval.batch_size * recipe.eval.crop**2
    if train:
        groups += recipe.train.micro_batch * recipe.augment.size**2
    check_shared_memory(3 * groups, workers)


def _skips(recipe: Recipe) -> bool:
    return isinstance(recipe.data, FolderData) and recipe.data.on_bad_image == "skip"


def _options(recipe: Recipe, process: Process) -> LoaderOptions:
    return LoaderOptions(worker_count(recipe.data.workers, process.local_world), process.device.type == "cuda")
