"""ImageNet's archives, read in place: a tar of a tar per class, a flat tar of validation images, and the devkit."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from resnext_train.errors import InputError, MissingLibraryError
from resnext_train.prepare.image_splits import Item, ListedSplit, Part, Split, check_distinct, is_plain

TRAIN_IMAGES, VAL_IMAGES, CLASSES = 1_281_167, 50_000, 1000
"""What ImageNet's 2012 archives hold (Russakovsky et al., arXiv 1409.0575, Table 2)."""

_CLASSES_PER_SHARD = 8
_BLOCK = 512


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int
    """Of its bytes, from the beginning of the outermost archive."""
    size: int


def members(path: str, start: int = 0, length: int | None = None, called: str = "") -> list[Member]:
    """The files in the tar at `path`, or in the tar that is `length` bytes from `start` on of it, sorted by name.

    Only headers are read. Folders are left out.

    Raises:
        InputError: no tar, one cut short, or a member that no archive of images has: a link, a device, an absolute
            name, or one that leads out of the folder it would be unpacked to.
    """
    called = called or path
    end = start
    found = []
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  workers get a str
            window = _Window(file.fileno(), start, os.fstat(file.fileno()).st_size if length is None else length)
            with tarfile.open(fileobj=window, mode="r:") as archive:
                for entry in archive:
                    end = start + entry.offset_data + (-(-entry.size // _BLOCK) * _BLOCK if entry.isreg() else 0)
                    if not entry.isdir():
                        _check_member(entry, called)
                        found.append(Member(entry.name.removeprefix("./"), start + entry.offset_data, entry.size))
            window.seek(end - start)
            closed = window.read(_BLOCK) == bytes(_BLOCK)
    except tarfile.TarError as error:
        raise InputError(
            f"{called} is damaged or no uncompressed tar ({error}); download it again, or give the archive itself"
        ) from error
    except OSError as error:
        raise InputError(f"{called} cannot be read: {error.strerror or error}") from error
    if not closed:
        # tarfile takes an archive that ends early for a whole one.
        raise InputError(f"{called} is cut short or damaged after byte {end - start:,}; download it again")
    check_distinct(Path(called), [member.name for member in found])
    return sorted(found)


def _check_member(entry: tarfile.TarInfo, called: str) -> None:
    if not entry.isreg() or entry.issparse():
        raise InputError(f"{called}: its member {entry.name!r} is a link or a device; this is no archive of images")
    if not is_plain(entry.name.removeprefix("./")):
        raise InputError(f"{called}: its member {entry.name!r} leads out of the archive; this is no archive of images")


class _Window(io.RawIOBase):
    """Part of a file as a file of its own."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor, self._start, self._length, self._position = descriptor, start, length, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        self._position = offset + (0, self._position, self._length)[whence]
        return self._position

    def advance(self) -> int:
        """Where we are."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        rest = max(0, self._length - self._position)
        data = os.pread(self._descriptor, rest if size < 0 else min(size, rest), self._start + self._position)
        self._position += len(data)
        return data


class _Class(NamedTuple):
    """The inner archive of one class."""

    name: str
    label: int
    offset: int
    size: int


@dataclass(frozen=True)
class InnerTars:
    """The images of some classes, which are listed where they are read: that takes a look at every image's header."""

    path: str
    classes: tuple[_Class, ...]

    def items(self) -> Iterator[Item]:
        """The images, in order."""
        for name, label, offset, size in self.classes:
            listed = members(self.path, offset, size, f"{self.path}: {name}.tar")
            if not listed:
                raise InputError(f"{self.path}: {name}.tar holds no image; download the archive again")
            for member in listed:
                yield Item(f"{name}/{member.name}", label, self.path, member.offset, member.size)


class TrainSplit:
    """ILSVRC2012_img_train.tar: a tar of WNID.tar files."""

    def __init__(self, path: Path, titles: dict[str, str]) -> None:
        self.where, self._path = str(path), str(path.absolute())
        inner = members(self._path)
        names = [Path(member.name).name.removesuffix(".tar") for member in inner]
        held = zip(inner, names, strict=True)
        strange = next((m.name for m, name in held if not m.name.endswith(".tar") or not is_plain(name)), None)
        if strange or not inner:
            found = f"holds {strange}" if strange else "is empty"
            raise InputError(f"--train-tar: {path} {found}; give the archive that holds a WNID.tar per class")
        check_distinct(path, names)
        self.classes = tuple(sorted(names))
        self.titles = {name: titles[name] for name in self.classes if name in titles}
        by_name = dict(zip(names, inner, strict=True))
        self._inner = [
            _Class(name, label, by_name[name].offset, by_name[name].size) for label, name in enumerate(self.classes)
        ]
        self.images: int | None = TRAIN_IMAGES if len(self.classes) == CLASSES else None
        stat = path.stat()
        self.fingerprint = _hash(repr((self._inner, stat.st_size, stat.st_mtime_ns)))
        self.parts = -(-len(self._inner) // _CLASSES_PER_SHARD)

    def part(self, number: int) -> Part:
        """What makes shard `number`."""
        start = number * _CLASSES_PER_SHARD
        return InnerTars(self._path, tuple(self._inner[start : start + _CLASSES_PER_SHARD]))


def val_split(path: Path, labels: list[str], titles: dict[str, str], labels_from: str) -> Split:
    """ILSVRC2012_img_val.tar: images whose names end in their number, and the class of each in that order.

    Raises:
        InputError: it cannot be read, or holds another number of images than there are labels.
    """
    listed = members(str(path.absolute()))
    numbered = sorted((_number(path, member.name), member) for member in listed)
    if len(numbered) != len(labels):
        raise InputError(
            f"--val-tar: {path} holds {len(numbered):,} images and {labels_from} {len(labels):,} labels; "
            "give those that belong together"
        )
    if [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise InputError(
            f"--val-tar: the names of {path} do not number its images from 1 to {len(numbered):,}, each once, so it is "
            "not known which label is whose; give the original archive, or pack a folder of class folders"
        )
    classes = tuple(sorted(set(labels)))
    position = {name: i for i, name in enumerate(classes)}
    items = [
        Item(f"{label}/{Path(member.name).name}", position[label], str(path.absolute()), member.offset, member.size)
        for (_, member), label in zip(numbered, labels, strict=True)
    ]
    check_distinct(path, [item.name for item in items])
    return ListedSplit(str(path), classes, items, {name: titles[name] for name in classes if name in titles})


def _number(path: Path, name: str) -> int:
    digits = re.findall(r"[0-9]+", Path(name).stem)
    if not digits:
        raise InputError(f"--val-tar: {path} holds {name}, whose name has no number to find its label by")
    return int(digits[-1])


class Devkit(NamedTuple):
    """What the devkit tells: the class of each validation image, and what the classes are called."""

    val_labels: list[str]
    titles: dict[str, str]


def read_devkit(path: Path) -> Devkit:
    """ILSVRC2012_devkit_t12.tar.gz.

    Label k of the ground truth is the class whose ILSVRC2012_ID is k; only leaves of the hierarchy, which are 1 to
    1000, are classes of images.

    Raises:
        InputError: it cannot be read, or lacks a file; or SciPy is not installed (MissingLibraryError).
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingLibraryError(
            f"--devkit: {path} holds a MATLAB file, which needs the library scipy; "
            "pip install 'resnext-train[imagenet]', or give --val-wnids instead"
        ) from error
    meta, truth = _devkit_files(path)
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        leaves = [s for s in synsets if int(s["num_children"]) == 0]
        names = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in leaves}
        titles = {str(s["WNID"]): str(s["words"]) for s in leaves}
        labels = [names[int(line)] for line in truth.decode().split()]
    except Exception as error:  # a reader of a foreign format raises many kinds
        raise InputError(f"--devkit: {path} is damaged or no ImageNet 2012 devkit ({error!r})") from error
    return Devkit(labels, titles)


def _devkit_files(path: Path) -> tuple[bytes, bytes]:
    wanted = {"/data/meta.mat": b"", "/data/ILSVRC2012_validation_ground_truth.txt": b""}
    try:
        with tarfile.open(path, "r:*") as archive:
            for entry in archive:
                for ending in wanted:
                    if entry.isreg() and f"/{entry.name}".endswith(ending):
                        wanted[ending] = _content(archive, entry)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"--devkit: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if missing := [ending for ending, content in wanted.items() if not content]:
        raise InputError(f"--devkit: {path} holds no *{missing[0]}; give ILSVRC2012_devkit_t12.tar.gz")
    return wanted["/data/meta.mat"], wanted["/data/ILSVRC2012_validation_ground_truth.txt"]


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file: IO[bytes] | Any = archive.extractfile(entry)
    content: bytes = file.read()
    return content


def read_wnids(path: Path) -> list[str]:
    """The class of each validation image, one a line, in the order of the images' numbers.

    Raises:
        InputError: it cannot be read, or a line is no name of a class.
    """
    try:
        labels = path.read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise InputError(f"--val-wnids: {path} is not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"--val-wnids: {path} cannot be read: {error.strerror}") from error
    if strange := next((name for name in labels if not is_plain(name) or "/" in name), None):
        raise InputError(f"--val-wnids: {path} holds {strange!r}, which cannot be a class")
    return labels


def remarks(splits: dict[str, Split]) -> Iterable[str]:
    """Sentences about what the archives hold other than ImageNet 2012; a subset is packed like the whole."""
    for name, split in splits.items():
        if len(split.classes) != CLASSES:
            yield f"{split.where} holds {len(split.classes):,} classes; ImageNet 2012 has {CLASSES:,}"
        if name == "val" and split.images != VAL_IMAGES:
            yield f"{split.where} holds {split.images:,} images; ImageNet 2012 has {VAL_IMAGES:,} for validation"


def remark_on_images(images: int) -> str:
    """A sentence about the number of training images, which is known when all are read; "" where it is ImageNet's."""
    if images == TRAIN_IMAGES:
        return ""
    return f"the training archive holds {images:,} images; ImageNet 2012 has {TRAIN_IMAGES:,}"


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
