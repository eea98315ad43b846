"""List the images to prepare, ordered as in an image folder: by class, then by path."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

from resnext_train.data.pack.pack_format import is_pack
from resnext_train.data.sources.folder_scan import class_folders
from resnext_train.data.sources.image_folder import MAX_BYTES, ImageFolder
from resnext_train.data.split_folders import find_splits
from resnext_train.errors import InputError
from resnext_train.regular_file import read_regular

ANNOTATIONS = "val_annotations.txt"
"""Tiny-ImageNet's labels of the files in val/images."""

KAGGLE_LABELS = "LOC_val_solution.csv"
"""Labels of ImageNet's validation images at Kaggle."""

_MAX_TABLE = 1_000_000_000
"""Bytes of a table of images at most; one of ImageNet has 0.1 GB."""

_CIFAR = ("cifar-10-batches-py", "cifar-100-python")


class Item(NamedTuple):
    """An image: its name in a pack, its label and the place of its bytes."""

    name: str
    label: int
    path: str
    offset: int = 0
    size: int = -1
    """Bytes from `offset`; -1: the whole file."""

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            InputError: it cannot be read from the disk.
        """
        try:
            data = read_regular(self.path, MAX_BYTES, self.offset, None if self.size < 0 else self.size)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        if 0 <= self.size != len(data):
            raise InputError(f"{self.path} was cut short while it was read; give the same command again")
        return data


class Part(Protocol):
    """The images of one shard, cheap to pickle: a slow listing runs in the worker."""

    def items(self) -> Iterable[Item]: ...


class Items(tuple[Item, ...]):
    """A part that is already listed."""

    def items(self) -> Iterable[Item]:
        return self


class Split(Protocol):
    """The images of a split, divided into one part per shard."""

    where: str
    """The source, for messages."""
    classes: tuple[str, ...]
    titles: dict[str, str]
    """Plain names of classes, as far as known."""
    images: int | None
    """Number of images; None: unknown until all are read."""
    fingerprint: str
    """Hash of the names, sizes and dates of the files."""
    parts: int

    def part(self, number: int) -> Part: ...


class FolderSplit:
    """A folder with a folder per class."""

    def __init__(self, root: Path) -> None:
        self._root = str(root.absolute())
        self._images = ImageFolder(root.absolute())
        self.where = str(root)
        self.classes = self._images.classes
        self.titles: dict[str, str] = {}
        count = len(self._images)
        self.images: int | None = count
        self._size = shard_size(count)
        self.parts = -(-count // self._size)
        self.fingerprint = _fingerprint(self._item(i) for i in range(count))

    def part(self, number: int) -> Part:
        start = number * self._size
        return Items(self._item(i) for i in range(start, min(start + self._size, len(self._images))))

    def _item(self, i: int) -> Item:
        path = self._images.name(i)
        return Item(path.removeprefix(self._root).lstrip("/"), int(self._images.labels[i]), path)


@dataclass
class ListedSplit:
    """Images listed one by one with their classes."""

    where: str
    classes: tuple[str, ...]
    listed: list[Item]
    titles: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.listed.sort(key=lambda item: (item.label, os.fsencode(item.name)))
        self.images: int | None = len(self.listed)
        self._size = shard_size(len(self.listed))
        self.parts = -(-len(self.listed) // self._size)
        self.fingerprint = _fingerprint(self.listed)

    def part(self, number: int) -> Part:
        return Items(self.listed[number * self._size : (number + 1) * self._size])


def shard_size(images: int) -> int:
    """Return the images per shard: 16 or more shards for parallel work and resuming, but few files."""
    return min(max(-(-images // 16), 64), 8192)


def _fingerprint(items: Iterable[Item]) -> str:
    """Hash names, labels, sizes and dates.

    Raises:
        InputError: a file cannot be read.
    """
    total = blake2b(digest_size=16)
    archives: dict[str, os.stat_result] = {}
    for item in items:
        try:
            stat = archives.get(item.path) or os.stat(item.path)  # noqa: PTH116  a Path for each image takes long
        except OSError as error:
            raise InputError(f"{item.path} cannot be read: {error.strerror}") from error
        if item.size >= 0:
            archives[item.path] = stat
        total.update(f"{item.label} {item.offset} {item.size} {stat.st_size} {stat.st_mtime_ns} ".encode())
        total.update(os.fsencode(item.name) + b"\0")
    return total.hexdigest()


def splits_of(source: Path) -> dict[str, Split]:
    """Return the splits in `source` by name: train and/or val of a data root, otherwise one named "".

    Raises:
        InputError: `source` holds nothing to prepare.
    """
    if source.suffix.lower() == ".csv":
        return {"": csv_split(source)}
    if not source.is_dir():
        raise InputError(
            f"{source} is neither a folder nor a .csv file; give one with images, or a table of path,label"
        )
    if cifar := next((name for name in _CIFAR if source.name == name or (source / name).is_dir()), None):
        raise InputError(f"{source} holds CIFAR's own files ({cifar}), which training reads without packing")
    if folders := find_splits(source):
        return {name: _folder_split(folder) for name, folder in folders.items()}
    return {"": _folder_split(source)}


def _folder_split(root: Path) -> Split:
    if is_pack(root):
        raise InputError(f"{root} is a pack already; pack the original images, or unpack it first")
    if (root / ANNOTATIONS).is_file():
        return _tiny_val(root)
    table = next(
        (above / KAGGLE_LABELS for above in root.absolute().parents if (above / KAGGLE_LABELS).is_file()), None
    )
    return _kaggle_val(root, table) if table and root.name == "val" and not class_folders(root) else FolderSplit(root)


def _tiny_val(root: Path) -> Split:
    """Read Tiny-ImageNet's val: files in images/ and a table of file name, class and more, separated by tabs."""
    path = root / ANNOTATIONS
    rows = [line.split("\t") for line in _text(path).split("\n") if line.strip()]
    if short := next((row for row in rows if len(row) < 2), None):
        raise InputError(f"{path}: the line {short[0]!r} names no class; each line is a file name, a tab and a class")
    pairs = [(row[0].strip(), row[1].strip()) for row in rows]
    for file, _ in pairs:
        if not is_plain(file) or "/" in file:
            raise InputError(f"{path}: {file!r} is not the name of a file in images/; correct that line")
    return _listed(path, [(str(root.absolute() / "images" / file), file, label) for file, label in pairs])


def _kaggle_val(root: Path, table: Path) -> Split:
    """Read ImageNet's val as Kaggle has it: files in one folder, and a table of image and prediction above it.

    A prediction begins with the class: n03995372 85 1 499 272.
    """
    triples = []
    for number, row in enumerate(_rows(table), 1):
        if row[:1] in ([], ["ImageId"]):
            continue
        label = row[1].split() if len(row) > 1 else []
        if not label or not is_plain(row[0]) or "/" in row[0]:
            raise InputError(f"{table}, line {number}: expected ImageId,PredictionString; correct it")
        name = f"{row[0]}.JPEG"
        triples.append((str(root.absolute() / name), name, label[0]))
    return _listed(table, triples)


def csv_split(path: Path) -> Split:
    """Read a table of path,label with or without a header line; paths are relative to the table's folder.

    The pack names an image CLASS/PATH, or CLASS/FILE if the path leads out of the table's folder.

    Raises:
        InputError: the table cannot be read, a row is not path,label, a file is missing, or two names are equal.
    """
    base = path.absolute().parent
    triples = []
    for number, row in enumerate(_rows(path), 1):
        if not row or (number == 1 and [cell.strip().lower() for cell in row[1:2]] in (["label"], ["class"])):
            continue
        if len(row) != 2 or not row[0].strip():
            raise InputError(f"{path}, line {number}: expected path,label, and found {len(row)} columns; correct it")
        file, label = row[0].strip(), row[1].strip()
        if not os.path.isfile(base / file):  # noqa: PTH113  False, not an error, for a path that is too long
            raise InputError(f"{path}, line {number}: {base / file} is not a file; correct the path or remove the line")
        name = file.removeprefix("./") if is_plain(file.removeprefix("./")) else Path(file).name
        triples.append((str(base / file), name.removeprefix(f"{label}/"), label))
    return _listed(path, triples)


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(_text(path).splitlines())
    except csv.Error as error:
        raise InputError(f"{path} is not a table of path,label: {error}") from error


def _listed(table: Path, triples: Sequence[tuple[str, str, str]]) -> Split:
    """Return the split of (file, name within its class, class) triples."""
    if not triples:
        raise InputError(f"{table} lists no image")
    for label in {label for _, _, label in triples}:
        if not is_plain(label) or "/" in label or label.startswith("."):
            raise InputError(f"{table}: {label!r} cannot be a class; a class is the name of a folder")
    classes = tuple(sorted({label for _, _, label in triples}))
    position = {name: i for i, name in enumerate(classes)}
    items = [Item(f"{label}/{name}", position[label], file) for file, name, label in triples]
    check_distinct(table, [item.name for item in items])
    return ListedSplit(str(table), classes, items)


def check_distinct(where: Path, names: Iterable[str]) -> None:
    """Refuse two images of the same name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: two images are called {name}; rename or remove one")
        seen.add(name)


def is_plain(name: str) -> bool:
    """Return whether `name` is a relative path without empty, "." and ".." parts."""
    return bool(name) and "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))


def _text(path: Path) -> str:
    try:
        return read_regular(path, _MAX_TABLE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def check_target(source: Path, target: Path) -> None:
    """Refuse to write into the images themselves."""
    inner, outer = target.resolve(), (source if source.is_dir() else source / "images").resolve()
    if inner == outer or outer in inner.parents:
        raise InputError(f"{target} lies in {source}, which is only read; write to another folder")


def parts_of(split: Split) -> Iterator[Part]:
    return (split.part(number) for number in range(split.parts))
