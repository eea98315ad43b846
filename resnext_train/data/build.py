"""From the recipe's data, augment and eval sections to sources and loaders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from resnext_train.config import DataSection, EvalSection, FolderData, PadAugment, Recipe, SyntheticData
from resnext_train.data.cifar import CifarImages, find_cifar
from resnext_train.data.classes import ClassImages, read_class_names
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
    """Training images, and validation images of the same classes or of some of them."""

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
    _check_classes(splits, root, subset=section.val_classes == "subset")
    return splits


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
    dataset = EvalGroups(images, EvalTransform(e.resize, e.crop, e.interpolation))
    sampler = EvalSampler(len(images), e.batch_size, process.world, process.rank)
    return groups_from(dataset, sampler, _options(recipe, process))


def _options(recipe: Recipe, process: Process) -> LoaderOptions:
    return LoaderOptions(worker_count(recipe.data.workers, process.local_world), process.device.type == "cuda")
