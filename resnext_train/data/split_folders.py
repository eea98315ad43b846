"""Find the folders of a data set's splits, by the names that are customary. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from resnext_train.data.pack.pack_format import is_pack

SplitName = Literal["train", "val"]

VALIDATION = ("val", "valid", "validation", "test")
"""Names of the validation split's folder, the usual one first."""


def find_split(root: Path, split: SplitName) -> Path | None:
    """Return the folder of a split in `root`, or None.

    valid/, validation/ and test/ may also be classes, or hold images without labels, as ImageNet's test/ does: they are
    splits where they have class folders, or are packs.
    """
    names = ("train",) if split == "train" else VALIDATION
    return next((root / name for name in names if _is_split(root / name, usual=name == split)), None)


def _is_split(folder: Path, usual: bool) -> bool:
    if usual or not folder.is_dir():
        return folder.is_dir()
    return is_pack(folder) or any(e.is_dir() and not e.name.startswith(".") for e in folder.iterdir())


def find_splits(root: Path) -> dict[SplitName, Path]:
    """Return the folders of those splits that `root` has."""
    if not root.is_dir():
        return {}
    found: dict[SplitName, Path | None] = {"train": find_split(root, "train"), "val": find_split(root, "val")}
    return {split: folder for split, folder in found.items() if folder is not None}


def splits_meant(given: Path) -> tuple[Path, dict[SplitName, Path]]:
    """Return the folder that holds both splits, and those that it has: `given`, or the folder above a split."""
    above, name = given.absolute().parent, given.absolute().name
    if name not in ("train", *VALIDATION) or find_splits(given) or not (above / "train").is_dir():
        return given, find_splits(given)
    named: dict[SplitName, Path] = {} if name == "train" else {"val": above / name}
    return above, find_splits(above) | named


def split_note(given: Path, splits: dict[SplitName, Path]) -> str:
    """Return what to say about splits that are not in `given`/train and `given`/val; "" if they are."""
    notes = []
    if "train" in splits and splits["train"].parent.absolute() != given.absolute():
        notes.append(f"of {splits['train'].parent}, which {given} is in")
    if "val" in splits and splits["val"].name != "val":
        notes.append(f"validation images in {splits['val'].name}/")
    return ", ".join(notes)
