"""Write a pack's files atomically: each is complete or absent."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnext_train.atomic_file import write_atomically
from resnext_train.data.pack.pack_format import (
    ALIGNMENT,
    COLUMNS,
    INDEX,
    INDEX_HEAD,
    INDEX_MAGIC,
    SHARD_HEAD,
    SHARD_MAGIC,
    VERSION,
    PackHeader,
    shard_name,
)
from resnext_train.errors import InputError

Columns = dict[str, NDArray[Any]]

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def write_errors_explained(path: Path) -> Iterator[None]:
    """Turn an OSError from writing below `path` into an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"{path}: the disk is full; make room and give the same command again, which resumes where it stopped"
            ) from error
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file as `write_atomically` does, under a temporary name of this process alone."""
    write_atomically(path, write, f"{os.getpid()}.new")


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of killed `write_whole` calls."""
    for path in folder.glob(".*.new"):
        path.unlink(missing_ok=True)


def write_shard(folder: Path, number: int, pack: str, records: Iterator[bytes]) -> tuple[NDArray[np.uint64], int]:
    """Write shard `number` of the pack with id `pack`; return each record's offset and the shard's size in bytes.

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
    """Concatenate the columns of all shards."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*COLUMNS, "names")}
    starts = np.cumsum([0, *(len(part["names"]) for part in parts[:-1])])
    joined["name_ends"] = np.concatenate(
        [part["name_ends"] + start for part, start in zip(parts, starts.tolist(), strict=True)]
    )
    return joined


def write_index(folder: Path, about: dict[str, Any], columns: Columns) -> None:
    """Write the index, which finishes the pack. `about`: the header fields that do not follow from the columns.

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
    # The header holds the offsets, which depend on its length: reserve room for them and pad with spaces.
    end = _aligned(INDEX_HEAD.size + len(draft) + 200 * len(arrays))
    room = end - INDEX_HEAD.size
    layout = {}
    for name, array in arrays.items():
        layout[name] = {"dtype": array.dtype.str, "offset": end, "shape": list(array.shape)}
        end = _aligned(end + array.nbytes)
    header = PackHeader(**fields, columns=layout, bytes=end)
    text = json.dumps(header._asdict()).encode().ljust(room)

    def write(file: IO[bytes]) -> None:
        file.write(INDEX_HEAD.pack(INDEX_MAGIC, VERSION, len(text)) + text)
        for array in arrays.values():
            file.write(array.data)
            file.write(bytes(-array.nbytes % ALIGNMENT))

    write_whole(folder / INDEX, write)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
