"""The pack format: the images of one split in a few large files, with one index that is memory-mapped.

    index.bin         a JSON header, then arrays with one row per image: where it is and what it is
    shard-00000.bin   64 bytes that name its pack, then the records back to back
    shard-00001.bin   ...

docs/pack-format.md has the layout byte by byte. Image i of a pack is image i of the folder that was packed.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 1
INDEX, PLAN = "index.bin", "plan.json"
INDEX_MAGIC, SHARD_MAGIC = b"RNXINDEX", b"RNXSHARD"
INDEX_HEAD = struct.Struct("<8sII")
"""Magic, version, length of the JSON header that follows."""
SHARD_HEAD = struct.Struct("<8sII16s32x")
"""Magic, version, number of the shard, id of the pack: 64 bytes."""
ALIGNMENT = 64
"""Every column starts at a multiple of this many bytes."""

RESTART, VERBATIM, PIXELS, UNREADABLE = range(4)
"""Kinds of records: a JPEG with restart markers, an unchanged file, uint8 (height, width, 3), an unreadable file."""
KINDS = ("restart", "verbatim", "pixels", "unreadable")

COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "shard": ("<u4", ()),
    "offset": ("<u8", ()),
    "length": ("<u4", ()),
    "height": ("<u4", ()),
    "width": ("<u4", ()),
    "label": ("<i8", ()),
    "kind": ("|u1", ()),
    "digest": ("|u1", (16,)),
    "name_ends": ("<i8", ()),
}
"""Type and shape of each column's rows. There is also `names`, the bytes of all names."""

SETTINGS: dict[str, tuple[str, ...]] = {"exact": (), "resized": ("size", "quality"), "raw": ("size",)}
"""Numbers that each tier's settings must hold."""


class PackHeader(NamedTuple):
    """The index's JSON header."""

    id: str
    """16 random bytes in hexadecimal, which are also in every shard."""
    tier: str
    settings: dict[str, Any]
    """How the records were made: size, quality, interpolation, jpegtran."""
    classes: list[str]
    titles: dict[str, str]
    """Plain names of the classes, where known."""
    images: int
    shards: list[int]
    """Bytes of each shard."""
    source: str
    """Fingerprint of the images and options that the pack was made from."""
    columns: dict[str, dict[str, Any]]
    """dtype, offset in the file and shape of each column."""
    bytes: int
    digest: str
    """blake2b-128 of all columns in order, in hexadecimal."""


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.bin"


def is_pack(path: Path) -> bool:
    """Return whether `path` is the folder of a finished pack; an unfinished one has no index."""
    return (path / INDEX).is_file()


def is_unfinished_pack(path: Path) -> bool:
    """Return whether `path` is the folder of a pack that is not finished, or has lost its index."""
    return (path / PLAN).is_file() or ((path / shard_name(0)).is_file() and not is_pack(path))
