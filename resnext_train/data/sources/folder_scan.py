"""Find the images in one folder per class, each folder once: links may lead to others, and back into the tree."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from resnext_train.errors import InputError

_Identity = tuple[int, int]
"""Device and inode of a folder, the same by whatever path it is reached."""


class FolderScan(NamedTuple):
    """What a folder of class folders holds; all paths are relative to it."""

    classes: list[str]
    files: list[list[bytes]]
    """The images of each class, sorted by path."""
    folders: dict[str, int]
    """The modification time (ns) of every folder that was read."""
    skipped: list[str]
    """Links to folders that were read already by another path."""


def class_folders(root: Path) -> list[str]:
    """Return the sorted names of the class folders in `root`, without hidden ones.

    Raises:
        InputError: it cannot be read.
    """
    return sorted(entry.name for entry in _entries(root) if is_folder(entry) and not entry.name.startswith("."))


def scan_folder(root: Path) -> FolderScan:
    """List the images of all class folders in `root`.

    Links to folders are followed only when all class folders have been read without them, in the order of classes and
    paths, and only to folders that were not read yet. The root and the folders that hold it are not read again either,
    so no link gives the images of one class to another.

    Raises:
        InputError: no folder, no class folders, one without images, one folder under two names, or one that cannot be
            read.
    """
    if not root.is_dir():
        there = f"; {root.parent} holds {_first(root.parent)}" if root.parent.is_dir() else ""
        raise InputError(f"data folder {root} not found{there}; set data.root to a folder that holds train/ and val/")
    classes = class_folders(root)
    if not classes:
        loose = sum(is_image(entry.name) for entry in _entries(root))
        found = (
            f"{loose} images but no class folders; sort them into one folder per class" if loose else "no class folders"
        )
        raise InputError(f"{root} holds {found}")
    walk = _Walk(root, classes)
    files = walk.images()
    for name, images in zip(classes, files, strict=True):
        if not images:
            raise InputError(
                f"class folder {root / name} holds no images ({', '.join(IMG_EXTENSIONS)}); fill or remove it"
            )
    return FolderScan(classes, files, walk.folders, walk.skipped)


def is_image(name: str) -> bool:
    """Return whether a file of this name is taken for an image: by its ending, and not if it is hidden."""
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


class _Walk:
    """Reads folders below a root, none of them twice."""

    def __init__(self, root: Path, classes: list[str]) -> None:
        self._root = root
        self.folders = {".": root.stat().st_mtime_ns}
        self.skipped: list[str] = []
        self._read = folders_that_hold(root)
        self._states = {name: os.stat(f"{root}/{name}") for name in classes}  # noqa: PTH116  without a Path: faster
        self._classes: dict[_Identity, str] = {}
        for name, state in self._states.items():
            if _identity(state) in self._read:
                raise InputError(f"class folder {root / name} leads to a folder that holds all classes; remove it")
            self._refuse_two_names(self._classes.setdefault(_identity(state), name), name)

    def images(self) -> list[list[bytes]]:
        """Return the images of each class, sorted by path; links are followed last."""
        found = [self._below(name, state) for name, state in self._states.items()]
        self._read |= self._classes.keys()
        self._classes.clear()
        for files, links in found:
            while links:
                link = links.pop(0)
                state = (self._root / link).stat()
                if self._is_new(link, state):
                    images, inner = self._below(link, state)
                    files += images
                    links += inner
            files.sort()
        return [files for files, _ in found]

    def _below(self, top: str, state: os.stat_result) -> tuple[list[bytes], list[str]]:
        """Return the images below a folder, and the links to folders there, sorted by path, which are not followed."""
        files: list[bytes] = []
        links: list[str] = []
        rest = [(top, state)]
        while rest:
            folder, state = rest.pop()
            self.folders[folder] = state.st_mtime_ns
            prefix = os.fsencode(folder) + b"/"
            for entry in _entries(f"{self._root}/{folder}"):
                if is_folder(entry):
                    path = f"{folder}/{entry.name}"
                    if entry.is_symlink():
                        links.append(path)
                    elif self._is_new(path, inner := os.stat(entry.path)):  # noqa: PTH116  as above
                        rest.append((path, inner))
                elif is_image(entry.name):
                    files.append(prefix + os.fsencode(entry.name))
        return files, sorted(links)

    def _is_new(self, folder: str, state: os.stat_result) -> bool:
        """Note that a folder is read now; return False if it was read before."""
        identity = _identity(state)
        if identity in self._read:
            self.skipped.append(folder)
            return False
        self._refuse_two_names(self._classes.get(identity, folder), folder)
        self._read.add(identity)
        return True

    def _refuse_two_names(self, one: str, other: str) -> None:
        if one != other:
            raise InputError(f"{self._root / one} and {self._root / other} are one folder of two classes; remove one")


def folders_that_hold(root: Path) -> set[_Identity]:
    """Return a folder and all above it, by device and inode."""
    resolved = root.resolve()
    found = set()
    for folder in (resolved, *resolved.parents):
        with contextlib.suppress(PermissionError):  # then no link leads there either
            found.add(_identity(folder.stat()))
    return found


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read: {error.strerror}; make it readable, or remove it") from error


def _first(folder: Path, most: int = 4) -> str:
    """Return the first names in a folder."""
    names = sorted(entry.name for entry in _entries(folder))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" if names else "nothing"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(state: os.stat_result) -> _Identity:
    return state.st_dev, state.st_ino
