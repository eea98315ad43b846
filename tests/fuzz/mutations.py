"""Change bytes at random: anywhere, in the headers of JPEG and PNG, and in the parts of a pack."""

from __future__ import annotations

import json
import math
import random
import struct
import zlib
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np

from fuzz.seeds import Pack
from resnext_train.data.pack.pack_format import COLUMNS, INDEX, INDEX_HEAD

_BYTES = (0, 1, 2, 7, 8, 0x11, 0x12, 0x21, 0x22, 0x44, 0x7F, 0x80, 0xC0, 0xC2, 0xD0, 0xD9, 0xDA, 0xDD, 0xFE, 0xFF)
_WORDS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4095, 9000, 10000, 32767, 32768, 65500, 65535)
_NUMBERS = (-(2**63), -1, 0, 1, 2, 63, 64, 65, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    None,
    True,
    "",
    "x",
    "00",
    0.5,
    1e308,
    float("nan"),
    [],
    {},
    [[]],
    [1, 2],
    {"a": 1},
)

Mutation = Callable[[bytearray, random.Random], None]


def _span(data: bytearray, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(2 ** rng.uniform(0, 8)))


def _place(data: bytearray, rng: random.Random) -> int:
    """Return an offset, in the first 700 bytes half of the time: there are the headers."""
    return rng.randrange(min(len(data), 700) if rng.random() < 0.5 else len(data))


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def set_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        data[_place(data, rng)] = rng.choice(_BYTES)


def set_word(data: bytearray, rng: random.Random) -> None:
    at, order = _place(data, rng), rng.choice("<>")
    word = struct.pack(order + rng.choice("HI"), rng.choice(_WORDS))
    data[at : at + len(word)] = word


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.choice((rng.randrange(len(data) + 1), max(0, len(data) - rng.randint(1, 20)))) :]


def insert(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = bytes(rng.choice(_BYTES) for _ in range(rng.randint(1, 20)))


def duplicate(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[start:end]


def delete(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    del data[start:end]


def segments(data: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Return (offset, marker, length) of a JPEG's segments up to its first scan; not the package's own reading."""
    at, found = 2, []
    while at + 4 <= len(data) and data[at] == 0xFF:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.append((at, data[at + 1], length))
        if data[at + 1] == 0xDA:
            break
        at += 2 + length
    return found


def change_segment(data: bytearray, rng: random.Random) -> None:
    """Rewrite a field of a JPEG's header: a length, size, sampling, interval or marker; or repeat or move a segment."""
    found = [s for s in segments(data) if s[0] + 2 + s[2] <= len(data)]
    if not found:
        return
    # What states sizes, intervals and scans, more often than tables.
    facts = [s for s in found if s[1] in (0xC0, 0xC1, 0xC2, 0xDA, 0xDD)]
    at, marker, length = rng.choice(facts if facts and rng.random() < 0.8 else found)
    kind = rng.randrange(6)
    if kind == 0:
        stated = rng.choice((*_WORDS, length - 1, length + 1, length + 3))
        struct.pack_into(">H", data, at + 2, stated & 0xFFFF)
    elif kind == 1:
        data[at + 1] = rng.choice((*range(0xC0, 0xE0), 0x01, 0xFF, 0x00, 0xFE))
    elif kind == 2:
        segment = data[at : at + 2 + length]
        where = rng.choice(found)[0]
        data[where:where] = segment
    elif kind == 3 and length > 4:
        data[at + 4 + rng.randrange(length - 2)] = rng.choice(_BYTES)
    elif marker in (0xC0, 0xC1, 0xC2):
        if kind == 4:
            struct.pack_into(">H", data, at + rng.choice((5, 7)), rng.choice((*_WORDS, rng.randrange(200))))
        else:
            data[min(len(data) - 1, at + 11 + 3 * rng.randrange(3))] = rng.choice((0x11, 0x12, 0x21, 0x22, 0x41, 0x14))
    elif marker == 0xDD:
        struct.pack_into(">H", data, at + 4, rng.choice((*_WORDS, rng.randrange(20))))
    elif length > 2:
        data[at + 4] = rng.choice(_BYTES)


def change_chunk(data: bytearray, rng: random.Random) -> None:
    """Rewrite a PNG's header with a valid checksum, which random bytes would not have."""
    if len(data) < 33 or data[:4] != b"\x89PNG":
        return
    if rng.random() < 0.6:
        struct.pack_into(">I", data, rng.choice((16, 20)), rng.choice((*_WORDS, 100_000, 2**31 - 1, 2**31)))
    else:
        data[24 + rng.randrange(5)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))


_ANYWHERE: tuple[Mutation, ...] = (flip_bits, set_bytes, set_word, cut, insert, duplicate, delete)


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return an image with one to four changes, some of them the rest of another image."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not changed:
            break
        if rng.random() < 0.05:
            other = rng.choice(others)
            changed = changed[: rng.randrange(len(changed) + 1)] + other[rng.randrange(len(other)) :]
        elif changed[:2] == b"\xff\xd8" and rng.random() < 0.5:
            change_segment(changed, rng)
        elif changed[:4] == b"\x89PNG" and rng.random() < 0.3:
            change_chunk(changed, rng)
        else:
            rng.choice(_ANYWHERE)(changed, rng)
    return bytes(changed)


def mutated_pack(files: Pack, rng: random.Random) -> Pack:
    """Return a pack with changes in its header, its columns or its shards."""
    changed = dict(files)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(5)
        if kind == 0:
            changed[INDEX] = _header_changed(changed[INDEX], rng)
        elif kind in (1, 2):
            changed[INDEX] = _column_changed(changed[INDEX], rng)
        else:
            name = INDEX if kind == 3 else rng.choice([name for name in changed if name != INDEX])
            data = bytearray(changed[name])
            if data:
                # Changes of length would only be refused by the first check.
                rng.choice((flip_bits, set_bytes, set_word) if rng.random() < 0.8 else _ANYWHERE)(data, rng)
                if name != INDEX and rng.random() < 0.5:
                    _change_record(data, rng)
            changed[name] = bytes(data)
    return changed


def signed(files: Pack) -> Pack:
    """Return a pack whose digests are those of its damaged records and columns, so that a check reads these, too."""
    if (found := _header_of(files[INDEX])) is None:
        return files
    header, length = found
    index, shards = bytearray(files[INDEX]), [data for name, data in sorted(files.items()) if name != INDEX]
    try:
        columns = {
            name: np.frombuffer(files[INDEX], about["dtype"], math.prod(about["shape"]), about["offset"])
            for name, about in header["columns"].items()
        }
        rows = zip(*(columns[name].tolist() for name in ("shard", "offset", "length")), strict=True)
        digests = b"".join(
            blake2b(shards[shard][at : at + size], digest_size=16).digest() if shard < len(shards) else bytes(16)
            for shard, at, size in rows
        )
        at = header["columns"]["digest"]["offset"]
        index[at : at + len(digests)] = digests
        whole = blake2b(digest_size=16)
        for name, about in header["columns"].items():
            whole.update(index[about["offset"] : about["offset"] + columns[name].nbytes])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, SyntaxError):
        return files  # the header has other damage, which is enough
    header["digest"] = whole.hexdigest()
    text = json.dumps(header).encode().ljust(length)
    index[: INDEX_HEAD.size + length] = INDEX_HEAD.pack(*INDEX_HEAD.unpack_from(index)[:2], len(text)) + text
    return {**files, INDEX: bytes(index)}


def _change_record(data: bytearray, rng: random.Random) -> None:
    """Rewrite the header of one of the JPEGs in a shard."""
    starts = [at for at in range(64, len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    if starts:
        start = rng.choice(starts)
        record = data[start:]
        change_segment(record, rng)
        data[start:] = record


def _header_of(index: bytes) -> tuple[Any, int] | None:
    """Return the header of an index and the length of its JSON, or None where it is damaged already."""
    if len(index) < INDEX_HEAD.size:
        return None
    length = INDEX_HEAD.unpack_from(index)[2]
    try:
        return json.loads(index[INDEX_HEAD.size : INDEX_HEAD.size + length]), length
    except (ValueError, RecursionError):
        return None


def _header_changed(index: bytes, rng: random.Random) -> bytes:
    if (found := _header_of(index)) is None:
        return index
    header, length = found
    at: Any = header
    for _ in range(4):
        if not at or not isinstance(at, dict | list):
            break
        key: Any = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not isinstance(at[key], dict | list) or rng.random() < 0.3:
            if isinstance(at, dict) and rng.random() < 0.1:
                del at[key]
            else:
                at[key] = rng.choice((*_VALUES, at[key] + rng.choice((-1, 1)) if type(at[key]) is int else 0))
            break
        at = at[key]
    text = json.dumps(header).encode().ljust(length)
    magic, version, _ = INDEX_HEAD.unpack_from(index)
    # A longer header moves the columns, as in no pack; a shorter one does not.
    return INDEX_HEAD.pack(magic, version, len(text)) + text + index[INDEX_HEAD.size + length :]


def _column_changed(index: bytes, rng: random.Random) -> bytes:
    found = _header_of(index)
    try:
        name = rng.choice([name for name in COLUMNS if name != "digest"])
        column = found[0]["columns"][name] if found else {}
        dtype, offset = np.dtype(COLUMNS[name][0]), int(column["offset"])
        row, number = rng.randrange(int(column["shape"][0])), rng.choice((*_NUMBERS, rng.randrange(300)))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return index  # an earlier change has left nothing to change
    at = offset + dtype.itemsize * row
    value = (number % 2 ** (8 * dtype.itemsize)).to_bytes(dtype.itemsize, "little")
    return index if not 0 <= at <= len(index) - len(value) else index[:at] + value + index[at + len(value) :]
