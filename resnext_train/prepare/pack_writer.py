"""Writing a pack: every file is whole under its name or is not there."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.pack.pack_format import (
    ALIGNMENT,
    COLUMNS,
    INDEX,
    INDEX_HEAD,
    INDEX_MAGIC,
    SHARD_HEAD,
    SHARD_MAGIC,
    VERSION,
    Header,
    shard_name,
)
from resnext_train.errors import InputError

Columns = dict[str, NDArray[Any]]

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing below `path` into an InputError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"{path}: the disk is full; make room and give the same command again, which goes on where it stopped"
            ) from error
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file, and give it its name when it is on the disk for good.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")  # two processes never write to the same file
    try:
        with fresh.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


def sync_folder(path: Path) -> None:
    """Make the names in a folder last."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed `write_whole` left."""
    for path in folder.glob(".*.new"):
        path.unlink(missing_ok=True)


def write_shard(folder: Path, number: int, pack: str, records: Iterator[bytes]) -> tuple[NDArray[np.uint64], int]:
    """Write shard `number` of the pack with this id; the offset of each record, and the shard's length in bytes.

    Raises:
        OSError: it cannot be written.
    """
    offsets: list[int] = []
    end = SHARD_HEAD.size

    def write(file: IO[bytes]) -> None:
        nonlocal end
        file.write(SHARD_HEAD.pack(SHARD_MAGIC, VERSION, number, bytes.fromhex(pack)))
        for record in records:
            offsets.append(end)
            file.write(record)
            end += len(record)

    write_whole(folder / shard_name(number), write)
    return np.array(offsets, np.uint64), end


def join_columns(parts: list[Columns]) -> Columns:
    """The columns of all shards, one after the other."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*COLUMNS, "names")}
    starts = np.cumsum([0, *(len(part["names"]) for part in parts[:-1])])
    joined["name_ends"] = np.concatenate(
        [part["name_ends"] + start for part, start in zip(parts, starts.tolist(), strict=True)]
    )
    return joined


def write_index(folder: Path, about: dict[str, Any], columns: Columns) -> None:
    """Write the index: with it the pack is finished.

    `about` holds the fields of the header that do not follow from the columns.

    Raises:
        OSError: it cannot be written.
    """
    arrays = {name: np.ascontiguousarray(columns[name], dtype) for name, (dtype, _) in COLUMNS.items()}
    arrays["names"] = np.ascontiguousarray(columns["names"], "|u1")
    digest = blake2b(digest_size=16)
    for array in arrays.values():
        digest.update(array.data)
    fields = {**about, "images": len(arrays["label"]), "digest": digest.hexdigest()}
    draft = json.dumps(fields).encode()
    # The offsets are in the header and follow from its length: leave room for them and fill up with spaces.
    end = _aligned(INDEX_HEAD.size + len(draft) + 200 * len(arrays))
    room = end - INDEX_HEAD.size
    places = {}
    for name, array in arrays.items():
        places[name] = {"dtype": array.dtype.str, "offset": end, "shape": list(array.shape)}
        end = _aligned(end + array.nbytes)
    header = Header(**fields, columns=places, bytes=end)
    text = json.dumps(header._asdict()).encode().ljust(room)

    def write(file: IO[bytes]) -> None:
        file.write(INDEX_HEAD.pack(INDEX_MAGIC, VERSION, len(text)) + text)
        for array in arrays.values():
            file.write(array.data)
            file.write(bytes(-array.nbytes % ALIGNMENT))

    write_whole(folder / INDEX, write)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
