"""Open a pack for reading: its index as memory-mapped columns, and its records."""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import re
import resource
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.pack.pack_format import (
    COLUMNS,
    INDEX,
    INDEX_HEAD,
    INDEX_MAGIC,
    PIXELS,
    SETTINGS,
    SHARD_HEAD,
    SHARD_MAGIC,
    VERSION,
    PackHeader,
    shard_name,
)
from resnext_train.errors import InputError
from resnext_train.regular_file import open_regular

_OPEN_SHARDS = 256
"""Shards that a process keeps open at most; ImageNet has some 160. Nor does it use more than a quarter of its file
descriptors, because a loader process also needs some for the tensors that it passes on."""

_MAX_RECORD = 1_000_000_000
"""Bytes of a record at most, as of an image's file."""

_MAX_HEADER = 100_000_000
"""Bytes of the header at most; that of 22,000 classes with titles has 2 MB."""


_PLAIN_TYPE = re.compile(r"[<>|=]?[biufcSUV]\d{1,4}")
"""NumPy's name of a type of numbers, text or bytes, as of the columns of this and later versions."""


class PackIndex:
    """An open pack: the columns as read-only arrays with one row per image, and the records.

    Opening checks the index and the shards' first bytes; only `resnext prepare check` checks the records. An instance
    may be used by several threads and after a fork; unpickling one opens the pack again.

    Raises:
        InputError: no pack, one of a newer version, a damaged index, or shards that are missing, cut short or foreign.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path / INDEX
        self.header = self._read_header()
        self.tier, self.settings = self.header.tier, self.header.settings
        self.classes: tuple[str, ...] = tuple(self.header.classes)
        self._map = self._mapped()
        self.shard: NDArray[np.uint32] = self._column("shard")
        self.offset: NDArray[np.uint64] = self._column("offset")
        self.length: NDArray[np.uint32] = self._column("length")
        self.height: NDArray[np.uint32] = self._column("height")
        self.width: NDArray[np.uint32] = self._column("width")
        self.label: NDArray[np.int64] = self._column("label")
        self.kind: NDArray[np.uint8] = self._column("kind")
        self.digest: NDArray[np.uint8] = self._column("digest")
        self._ends: NDArray[np.int64] = self._column("name_ends")
        self._names: NDArray[np.uint8] = self._column("names")
        if int(self._ends[-1]) != len(self._names):
            raise self._damaged("its names do not end where they should")
        if self.label.min() < 0 or self.label.max() >= len(self.classes):
            raise self._damaged("a label is not that of a class")
        for number, size in enumerate(self.header.shards):
            self._check_shard(number, size)
        # lru_cache is implemented in C, and so safe among threads and after a fork, where our own lock would not be.
        self._shard_file = lru_cache(maxsize=_open_limit())(self._open_shard)
        self._shard_pixels = lru_cache(maxsize=_open_limit())(self._map_shard)  # a map keeps its file open

    def __len__(self) -> int:
        return self.header.images

    def __reduce__(self) -> tuple[Callable[[Path, str], PackIndex], tuple[Path, str]]:
        return _open_again, (self.path, self.header.id)

    def name(self, i: int) -> str:
        """Return the path of image `i` relative to the packed folder, such as n01440764/n01440764_18.JPEG."""
        start = int(self._ends[i - 1]) if i else 0
        return os.fsdecode(self._names[start : int(self._ends[i])].tobytes())

    def read(self, i: int) -> bytearray:
        """Read the record of image `i`.

        Raises:
            OSError: a failure of the disk, or a record outside its shard.
        """
        number, offset, length = int(self.shard[i]), int(self.offset[i]), int(self.length[i])
        self._check_place(number, offset, length)
        if length > _MAX_RECORD:
            raise _damaged_record(f"{self._file} is damaged: it states a record of {length:,} bytes")
        data = bytearray(length)
        rest, file = memoryview(data), self._shard_file(number)
        while rest:
            count = os.preadv(file.descriptor, [rest], offset)
            if not count:
                raise _damaged_record(f"{self.path / shard_name(number)} was cut short")
            rest, offset = rest[count:], offset + count
        return data

    def pixels(self, i: int) -> NDArray[np.uint8]:
        """Return the pixels (height, width, 3) of image `i`, of kind PIXELS: a read-only view of the file, not a copy.

        Raises:
            OSError: a record outside its shard, or one whose length does not match its height and width.
        """
        number, offset, length = int(self.shard[i]), int(self.offset[i]), int(self.length[i])
        shape = (int(self.height[i]), int(self.width[i]), 3)
        self._check_place(number, offset, length)
        if self.kind[i] != PIXELS or not length or math.prod(shape) != length:
            raise _damaged_record(f"{self._file}: the record of {self.name(i)} is not an array of {shape} pixels")
        shard = self._shard_pixels(number)
        if offset + length > len(shard):
            raise _damaged_record(f"{self.path / shard_name(number)} was cut short")
        return np.frombuffer(shard, np.uint8, length, offset).reshape(shape)

    def columns_digest(self) -> str:
        """Compute the blake2b-128 of the columns as they are now; reads the whole index.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: a column is of a type that NumPy cannot read.
        """
        from hashlib import blake2b

        total = blake2b(digest_size=16)
        for name, column in self.header.columns.items():
            if not _PLAIN_TYPE.fullmatch(str(column["dtype"])):  # NumPy 1.26 and 2.0 crash on some others
                raise ValueError(name)
            total.update(self._column(name).data)
        return total.hexdigest()

    def _read_header(self) -> PackHeader:
        try:
            with os.fdopen(open_regular(self._file), "rb") as file:
                head = file.read(INDEX_HEAD.size)
                if len(head) < INDEX_HEAD.size or not head.startswith(INDEX_MAGIC):
                    raise self._damaged("it does not begin as an index does")
                _, version, length = INDEX_HEAD.unpack(head)
                if version > VERSION:
                    raise InputError(
                        f"{self._file} is of version {version} of the pack format, and this resnext-train reads up to "
                        f"version {VERSION}; update it with pip install --upgrade resnext-train"
                    )
                if length > _MAX_HEADER:
                    raise self._damaged("its header is too long")
                text = file.read(length)
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise InputError(
                f"{self.path} holds no {INDEX}, so it is no finished pack; let resnext prepare finish it, "
                "or give the folder that holds it"
            ) from error
        except OSError as error:
            raise InputError(f"{self._file} cannot be read: {error.strerror}") from error
        try:
            content = json.loads(text)
            header = PackHeader(**{field: content[field] for field in PackHeader._fields})
            self._check_columns(header)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged("its header makes no sense") from error
        if size != header.bytes:
            raise self._damaged(f"it is {size:,} bytes long and should be {header.bytes:,}")
        return header

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self._file} is damaged: {why}; copy it again, or pack the images again")

    @staticmethod
    def _check_columns(header: PackHeader) -> None:
        """Raise ValueError, KeyError, TypeError or AttributeError unless a header is valid.

        Every column must be present and lie within the file.
        """
        known = {name: (dtype, [header.images, *row]) for name, (dtype, row) in COLUMNS.items()}
        (names,) = header.columns["names"]["shape"]
        known["names"] = ("|u1", [names])
        if len(bytes.fromhex(header.id)) != 16:
            raise ValueError("id")
        if not all(type(header.settings[name]) is int for name in SETTINGS[header.tier]):
            raise TypeError("settings")
        if not header.images > 0:
            raise ValueError("images")
        integers = [header.images, *header.shards, *(column["offset"] for column in header.columns.values())]
        if not all(type(number) is int for number in integers) or min(header.shards, default=0) < SHARD_HEAD.size:
            raise ValueError("not an integer")
        if not all(isinstance(name, str) for name in (*header.classes, *header.titles.values())):
            raise TypeError("not a name")
        for name, (dtype, shape) in known.items():
            column = header.columns[name]
            if not all(type(count) is int for count in column["shape"]):  # 3.0 and True would equal 3 and 1
                raise TypeError(name)
            end = column["offset"] + np.dtype(dtype).itemsize * math.prod(shape)
            if (column["dtype"], column["shape"]) != (dtype, shape) or not 0 < column["offset"] <= end <= header.bytes:
                raise ValueError(name)

    def _mapped(self) -> mmap.mmap:
        with os.fdopen(open_regular(self._file), "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _column(self, name: str) -> NDArray[Any]:
        column = self.header.columns[name]
        array = np.frombuffer(self._map, column["dtype"], math.prod(column["shape"]), column["offset"])
        return array.reshape(column["shape"])

    def _check_shard(self, number: int, size: int) -> None:
        path = self.path / shard_name(number)
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                head, found = file.read(SHARD_HEAD.size), os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; copy it to the pack again, or pack the images again") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        if found != size:
            raise InputError(
                f"{path} is {found:,} bytes long and should be {size:,}; copy it again, or pack the images again"
            )
        if head != SHARD_HEAD.pack(SHARD_MAGIC, VERSION, number, bytes.fromhex(self.header.id)):
            raise InputError(
                f"{path} does not belong to {self._file}; copy all files of one pack, or pack the images again"
            )

    def _check_place(self, number: int, offset: int, length: int) -> None:
        shards = self.header.shards
        if number >= len(shards) or not SHARD_HEAD.size <= offset <= offset + length <= shards[number]:
            raise _damaged_record(f"{self._file} is damaged: it points to a record outside its shard")

    def _open_shard(self, number: int) -> _OpenFile:
        return _OpenFile(self.path / shard_name(number))

    def _map_shard(self, number: int) -> mmap.mmap:
        with os.fdopen(open_regular(self.path / shard_name(number)), "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _open_again(path: Path, pack_id: str) -> PackIndex:
    index = PackIndex(path)
    if index.header.id != pack_id:
        raise InputError(f"{path} was replaced by another pack while loader processes were started")
    return index


def _damaged_record(why: str) -> OSError:
    """Return an error that concerns one image, as of a place on a disk that cannot be read."""
    return OSError(errno.EIO, why)


class _OpenFile:
    """A file that closes with its last user, so that one thread cannot close it while another reads."""

    def __init__(self, path: Path) -> None:
        self.descriptor = open_regular(path)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _open_limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _OPEN_SHARDS if soft == resource.RLIM_INFINITY else max(1, min(_OPEN_SHARDS, soft // 4))
