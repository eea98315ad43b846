"""Read ImageNet's archives in place: a tar of class tars, and a flat tar of validation images."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import Item, ListedSplit, Part, Split, check_distinct, is_plain
from resnext_train.regular_file import open_regular

TRAIN_IMAGES, VAL_IMAGES, CLASSES = 1_281_167, 50_000, 1000
"""Counts of ImageNet 2012 (Russakovsky et al., arXiv 1409.0575, Table 2)."""

_CLASSES_PER_SHARD = 8
_BLOCK = 512
_MAX_HEADER = 8192
"""Bytes of an extension of a tar's header at most; tarfile takes time with the square of it. A path has up to 4096."""


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int
    """Position of its first byte in the outermost archive."""
    size: int


def members(path: str, start: int = 0, length: int | None = None, called: str = "") -> list[Member]:
    """List the files in the tar at `path`, or in the inner tar at bytes start:start+length of it, sorted by name.

    Only headers are read. Folders are left out. Messages name the archive `called`.

    Raises:
        InputError: no tar, a truncated one, or an unsafe member: a link, a device, an absolute name or one with "..".
    """
    called = called or path
    end = start
    found = []
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as file:
            window = _Window(file.fileno(), start, os.fstat(file.fileno()).st_size if length is None else length)
            with tarfile.open(fileobj=window, mode="r:", tarinfo=TarHeader) as archive:
                for entry in entries_of(archive):
                    end = start + entry.offset_data + (-(-entry.size // _BLOCK) * _BLOCK if entry.isreg() else 0)
                    if not entry.isdir():
                        _check_member(entry, called)
                        found.append(Member(entry.name.removeprefix("./"), start + entry.offset_data, entry.size))
            window.seek(end - start)
            closed = window.read(_BLOCK) == bytes(_BLOCK)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{called} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # tarfile raises many kinds on damaged headers
        raise InputError(
            f"{called} is damaged or not an uncompressed tar ({reason_of(error)}); download it again, "
            "or give the archive itself"
        ) from error
    if not closed:
        # tarfile accepts an archive that ends early; a complete one ends with a block of zeros.
        raise InputError(f"{called} is cut short or damaged after byte {end - start:,}; download it again")
    check_distinct(Path(called), [member.name for member in found])
    return sorted(found)


class TarHeader(tarfile.TarInfo):
    """A header of a tar; raises ReadError at an extension that is too long."""

    _EXTENSIONS = frozenset((b"x", b"g", b"X", b"L", b"K"))

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the extension, if this is one. tarfile lets subclasses override this; newer ones pass by `frombuf`."""
        if self.type in self._EXTENSIONS and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"an extension of a header has {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def entries_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield what an archive holds; raise ReadError at a negative size, which would lead back to earlier headers."""
    for entry in archive:
        if entry.size < 0:
            raise tarfile.ReadError(f"the size of {entry.name!r} is negative")
        yield entry


def reason_of(error: Exception) -> str:
    return str(error) if isinstance(error, tarfile.TarError) else f"{type(error).__name__} in a header"


def _check_member(entry: tarfile.TarInfo, called: str) -> None:
    if not entry.isreg() or entry.issparse():
        raise InputError(f"{called}: its member {entry.name!r} is a link or a device; not an archive of images")
    if not is_plain(entry.name.removeprefix("./")):
        raise InputError(f"{called}: its member {entry.name!r} leads out of the archive; not an archive of images")


class _Window(io.RawIOBase):
    """A part of a file as a file object."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor, self._start, self._length, self._position = descriptor, start, length, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._length)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
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
    """The images of some classes, listed by the worker that packs them: listing reads every image's tar header."""

    path: str
    classes: tuple[_Class, ...]

    def items(self) -> Iterator[Item]:
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
        pairs = zip(inner, names, strict=True)
        unexpected = next((m.name for m, name in pairs if not m.name.endswith(".tar") or not is_plain(name)), None)
        if unexpected or not inner:
            found = f"holds {unexpected}" if unexpected else "is empty"
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
        start = number * _CLASSES_PER_SHARD
        return InnerTars(self._path, tuple(self._inner[start : start + _CLASSES_PER_SHARD]))


def val_split(path: Path, labels: list[str], titles: dict[str, str], labels_from: str) -> Split:
    """Read ILSVRC2012_img_val.tar, whose file names end in the number of the image; label i is that of number i + 1.

    Raises:
        InputError: it cannot be read, or its images do not match the labels in number.
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
            f"--val-tar: the names of {path} do not number its images from 1 to {len(numbered):,}, each once, so the "
            "labels cannot be assigned; give the original archive, or pack a folder of class folders"
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
        raise InputError(f"--val-tar: {path} holds {name}, whose name has no number, so its label is unknown")
    return int(digits[-1])


def remarks(splits: dict[str, Split]) -> Iterable[str]:
    """Describe how the archives differ from ImageNet 2012; a subset is packed like the whole."""
    for name, split in splits.items():
        if len(split.classes) != CLASSES:
            yield f"{split.where} holds {len(split.classes):,} classes; ImageNet 2012 has {CLASSES:,}"
        if name == "val" and split.images != VAL_IMAGES:
            yield f"{split.where} holds {split.images:,} images; ImageNet 2012 has {VAL_IMAGES:,} for validation"


def remark_on_images(images: int) -> str:
    """Describe a number of training images, known after packing, that is not ImageNet's; otherwise ""."""
    if images == TRAIN_IMAGES:
        return ""
    return f"the training archive holds {images:,} images; ImageNet 2012 has {TRAIN_IMAGES:,}"


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
