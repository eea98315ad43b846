"""Build image sources from the recipe's data section."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resnext_train.config import DataSection, FolderData, SyntheticData
from resnext_train.data.pack.pack_format import is_pack, is_unfinished_pack
from resnext_train.data.sources.cifar_images import CifarImages, find_cifar
from resnext_train.data.sources.class_subset import ClassImages, read_class_names
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.data.sources.synthetic_images import SyntheticImages
from resnext_train.data.split_folders import SplitName, find_splits, split_note, splits_meant
from resnext_train.errors import InputError
from resnext_train.regular_file import user_path


def open_images(root: Path) -> ImageSource:
    """Open the images under `root`, a pack or a folder of class folders.

    Raises:
        InputError: it is neither, or the pack is damaged or unfinished.
    """
    if is_pack(root):
        return PackedImages(root)
    for folder in (root, *find_splits(root).values()):
        if is_unfinished_pack(folder):
            raise InputError(
                f"{folder} holds a pack that is not finished, or has lost its index; give the command that began it "
                "again, or copy it again"
            )
    return ImageFolder(root)


@dataclass(frozen=True)
class Splits:
    """Training images, and validation images of the same classes or of some of them."""

    train: ImageSource
    val: ImageSource
    note: str = ""
    """Where the images are, if that is not train/ and val/ of data.root."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def storage(self) -> dict[str, str]:
        """How the images of each split are stored, in words."""
        return {"train": self.train.storage.text, "val": self.val.storage.text}


_SPLITS: tuple[SplitName, SplitName] = ("train", "val")


def build_splits(section: DataSection) -> Splits:
    """Open both splits of a recipe's data.

    Raises:
        InputError: folders that are missing or empty, damaged files, or classes that differ between the splits.
    """
    if isinstance(section, SyntheticData):
        return Splits(
            SyntheticImages(section.classes, section.train_images, section.size, "train"),
            SyntheticImages(section.classes, section.val_images, section.size, "val"),
        )
    given = _root(section)
    root, found = splits_meant(given)
    if cifar := find_cifar(root):
        return Splits(CifarImages(cifar, root, "train"), CifarImages(cifar, root, "val"))
    train, val = (_restrict(open_images(found.get(name, root / name)), section) for name in _SPLITS)
    splits = Splits(train, val, split_note(given, found))
    _check_classes(splits, root, subset=section.val_classes == "subset")
    return splits


def _restrict(source: ImageSource, section: FolderData) -> ImageSource:
    """Keep only the images of the classes that data.only_classes names, if it is set."""
    if section.only_classes is None:
        return source
    path = user_path(section.only_classes)
    names = read_class_names(path, "data.only_classes")
    held = set(source.classes).intersection(names)
    if (unknown := missing_from(names, held)) and section.val_classes == "same":
        raise InputError(f"data.only_classes: {path} names classes that the data does not have: {first_few(unknown)}")
    if not held:
        raise InputError(f"data.only_classes: {path} names no class of the data")
    return ClassImages(source, tuple(sorted(held)))


def _check_classes(splits: Splits, root: Path, subset: bool) -> None:
    """Raise InputError if the classes differ; with `subset`, val may lack some."""
    train, val = set(splits.train.classes), set(splits.val.classes)
    only = {"train": [] if subset else sorted(train - val), "val": sorted(val - train)}
    differences = "; ".join(f"only in {k}: {first_few(v)}" for k, v in only.items() if v)
    if only["val"]:
        rule = "val may hold no others than train" if subset else "they must be the same"
        raise InputError(f"train and val under {root} hold different classes ({differences}); {rule}")
    if only["train"]:
        raise InputError(
            f"train and val under {root} hold different classes ({differences}); they must be the same, "
            "unless data.val_classes=subset lets val lack some"
        )


def build_train(section: DataSection) -> ImageSource:
    """Open the training images alone: CIFAR's training images, root/train, or root itself as in `build_val`.

    Raises:
        InputError: folders that are missing or empty, or damaged files.
    """
    return _build_split(section, "train")


def build_val(section: DataSection) -> ImageSource:
    """Open the images to evaluate: CIFAR's test images, root/val, or root itself if it is a pack or has class folders.

    root/val may also be called valid/, validation/ or test/, see `find_split`.

    Raises:
        InputError: folders that are missing or empty, or damaged files.
    """
    return _build_split(section, "val")


def _build_split(section: DataSection, split: SplitName) -> ImageSource:
    if isinstance(section, SyntheticData):
        images = section.train_images if split == "train" else section.val_images
        return SyntheticImages(section.classes, images, section.size, split)
    root = _root(section)
    if cifar := find_cifar(root):
        return CifarImages(cifar, root, split)
    return _restrict(open_images(split_folder(section, split)), section)


def split_folder(section: FolderData, split: SplitName) -> Path:
    """Return the folder of a split, see `find_split`, or data.root itself if it has none."""
    root = _root(section)
    return find_splits(root).get(split, root)


def _root(section: FolderData) -> Path:
    if section.root is None:
        raise InputError("data.root is not set; add data.root=/path/to/images (a folder that holds train/ and val/)")
    return user_path(section.root)


def first_few(names: list[str]) -> str:
    """Return the first three names and the number of the others, for messages."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def missing_from(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return those of `names` that are not `known`, in order."""
    known = set(known)
    return [name for name in names if name not in known]
