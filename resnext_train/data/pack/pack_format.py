"""The pack format: the images of one split in a few large files, with one index that is memory-mapped.

    index.bin         what is where: arrays with a row per image, behind a JSON header
    shard-00000.bin   64 bytes that say to which pack it belongs, then the records back to back
    shard-00001.bin   ...

docs/pack-format.md has the layout byte by byte. Image i of a pack is image i of the folder that it was made of.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 1
INDEX, PLAN = "index.bin", "plan.json"
INDEX_MAGIC, SHARD_MAGIC = b"RNXINDEX", b"RNXSHARD"
INDEX_HEAD = struct.Struct("<8sII")
"""Magic, version, length of the JSON header, which follows."""
SHARD_HEAD = struct.Struct("<8sII16s32x")
"""Magic, version, number of the shard, id of the pack: 64 bytes."""
ALIGNMENT = 64
"""Every column starts at a multiple of this many bytes."""

RESTART, VERBATIM, PIXELS, UNREADABLE = range(4)
"""What a record is: a JPEG with restart markers; a file as it was; uint8 (height, width, 3); a file nothing reads."""
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
"""Type and shape of a row of each column; beside them is `names`, the bytes of all names."""

SETTINGS: dict[str, tuple[str, ...]] = {"exact": (), "resized": ("size", "quality"), "raw": ("size",)}
"""Numbers that the settings of each tier state."""


class Header(NamedTuple):
    """The index's JSON header."""

    id: str
    """16 random bytes in hexadecimal, which are in every shard, too."""
    tier: str
    """exact, resized or raw."""
    settings: dict[str, Any]
    """How the records were made: size, quality, interpolation, jpegtran."""
    classes: list[str]
    titles: dict[str, str]
    """What a class is called in plain words, where that is known."""
    images: int
    shards: list[int]
    """Bytes of each shard."""
    source: str
    """Fingerprint of the images and options that the pack was made of."""
    columns: dict[str, dict[str, Any]]
    """dtype, offset in the file and shape of each column."""
    bytes: int
    """Length of the index file."""
    digest: str
    """blake2b-128 of the columns, one after the other, in hexadecimal."""


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.bin"


def is_pack(path: Path) -> bool:
    """Whether `path` is the folder of a finished pack; one that is still being made has no index."""
    return (path / INDEX).is_file()
