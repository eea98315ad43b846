"""Read the header of a JPEG file without decoding it."""

from __future__ import annotations

import struct
from typing import NamedTuple


class BadImageError(Exception):
    """An image that cannot be decoded; the message says why."""


BASELINE, EXTENDED, _SCAN, _RESTART_INTERVAL, END = 0xC0, 0xC1, 0xDA, 0xDD, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a length."""


class JpegHeader(NamedTuple):
    """The facts that a JPEG file states before its first scan."""

    height: int
    width: int
    kind: int
    """Code of the frame's marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, from 0xC9 on arithmetic-coded."""
    precision: int
    sampling: tuple[tuple[int, int], ...]
    """Horizontal and vertical sampling factor of each component."""
    interval: int
    """MCUs from one restart marker to the next; 0: no restart markers."""
    frame: int
    """Offset of the frame's marker in bytes."""
    scan: int
    """Offset of the first scan's data in bytes."""
    scan_components: int

    @property
    def mcu_height(self) -> int:
        """Height of an MCU in pixels, in a scan of all components; an MCU of a single component is 8 × 8."""
        return 8 * max(v for _, v in self.sampling) if len(self.sampling) > 1 else 8

    @property
    def mcu_width(self) -> int:
        return 8 * max(h for h, _ in self.sampling) if len(self.sampling) > 1 else 8


def is_jpeg(data: bytes | bytearray) -> bool:
    """Return whether the bytes begin like a JPEG file, whatever the file's name."""
    return data[:3] == b"\xff\xd8\xff"


def read_header(data: bytes | bytearray) -> JpegHeader:
    """Parse the header of a JPEG file.

    Raises:
        BadImageError: it is no JPEG file, or its header is damaged.
    """
    if not is_jpeg(data):
        raise BadImageError("it is no JPEG file")
    try:
        return _read_header(data)
    except (struct.error, IndexError) as error:
        raise BadImageError("the JPEG header is cut short or damaged") from error


def _read_header(data: bytes | bytearray) -> JpegHeader:
    at, interval, frame = 2, 0, 0
    height = width = kind = precision = 0
    sampling: tuple[tuple[int, int], ...] = ()
    while True:
        if data[at] != 0xFF:
            raise BadImageError("the JPEG header is damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if not 2 <= length <= len(data) - at - 2:
            raise BadImageError("the JPEG header is cut short or damaged")
        if marker in _FRAMES:
            frame, kind = at, marker
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            sampling = tuple((data[at + 11 + 3 * c] >> 4, data[at + 11 + 3 * c] & 15) for c in range(components))
        elif marker == _RESTART_INTERVAL:
            (interval,) = struct.unpack_from(">H", data, at + 4)
        at += 2 + length
        if marker == _SCAN:
            break
        if marker == END:
            raise BadImageError("the JPEG file holds no image")
    if not (height and width and sampling and all(h and v for h, v in sampling)):
        raise BadImageError("the JPEG header states no size")
    return JpegHeader(height, width, kind, precision, sampling, interval, frame, at, data[at - length + 2])
