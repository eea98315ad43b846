"""Find the folders of a data set's splits, by the names that are customary. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SplitName = Literal["train", "val"]

VALIDATION = ("val", "valid", "validation", "test")
"""Names of the validation split's folder, the usual one first."""


def find_split(root: Path, split: SplitName) -> Path | None:
    """Return the folder of a split in `root`, or None.

    A folder valid/, validation/ or test/ may also be a class of that name. It is a split beside train/, or where all
    folders have names of splits.
    """
    names = ("train",) if split == "train" else VALIDATION
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None or found.name == split or (root / "train").is_dir():
        return found
    folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    return found if folders <= {"train", *VALIDATION} else None


def find_splits(root: Path) -> dict[SplitName, Path]:
    """Return the folders of those splits that `root` has."""
    found: dict[SplitName, Path | None] = {"train": find_split(root, "train"), "val": find_split(root, "val")}
    return {split: folder for split, folder in found.items() if folder is not None}


def data_root(root: Path) -> Path:
    """Return the folder that holds both splits: `root`, or the one above it where `root` is one of them."""
    if root.name in ("train", *VALIDATION) and not find_splits(root) and len(find_splits(root.absolute().parent)) == 2:
        return root.absolute().parent
    return root


def split_note(given: Path, splits: dict[SplitName, Path]) -> str:
    """Return what to say about splits that are not in `given`/train and `given`/val; "" if they are."""
    notes = []
    if "train" in splits and splits["train"].parent != given:
        notes.append(f"of {splits['train'].parent}, which {given} is in")
    if "val" in splits and splits["val"].name != "val":
        notes.append(f"validation images in {splits['val'].name}/")
    return ", ".join(notes)
