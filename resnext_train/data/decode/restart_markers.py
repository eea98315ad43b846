"""Cut a part out of a JPEG without decoding the rest, by its restart markers.

Decoding starts afresh after a restart marker, so the segments of MCUs (minimum coded units: 8×8 to 16×16 pixels)
between two markers do not depend on one another. In a file with a marker every k MCUs, where k divides the MCUs of a
row, the segments form a grid. Those that cover a box, behind the original header with height and width patched, are a
small valid JPEG of just that part.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from resnext_train.data.decode.jpeg_header import BASELINE, END, EXTENDED, JpegHeader

_UPSAMPLED_EXACTLY = frozenset(
    [((1, 1), (1, 1), (1, 1)), ((2, 1), (1, 1), (1, 1)), ((2, 2), (1, 1), (1, 1)), ((1, 2), (1, 1), (1, 1))]
)
"""4:4:4, 4:2:2, 4:2:0 and 4:4:0: samplings whose chroma upsampling reads at most one pixel beyond a box."""

_MIN_WIDTH = 8
"""Least width of a small JPEG in pixels: libjpeg upsamples chroma planes of one or two columns differently."""

_RESTARTS = (0xD0 + (np.arange(1 << 18) & 7)).astype(np.uint8)
"""Codes of a scan's restart markers, which count modulo 8. Scans with more segments are decoded whole."""


_MAX_SCAN = 1 << 27
"""Bytes of a scan at most: finding markers may take ten times as many. One of 100 million pixels has half of these."""


class RestartSegments:
    """The grid of restart segments of a JPEG file."""

    def __init__(
        self, data: bytes | bytearray, header: JpegHeader, rows: int, columns: int, bounds: NDArray[np.int64]
    ) -> None:
        """`bounds` are offsets in `data`: segment i, its marker included, lies between bounds i and i + 1."""
        self._data, self._header = data, header
        self._rows, self._columns, self._bounds = rows, columns, bounds
        self._height, self._width = header.mcu_height, header.mcu_width * header.interval  # of a segment, in pixels

    def cut(self, top: int, left: int, height: int, width: int) -> tuple[bytearray, int, int]:
        """Return a small JPEG that covers a box, and the box's top and left in it; its pixels equal the whole image's.

        It covers one more pixel on each side, so that the upsampling of chroma is exact, too.
        """
        h = self._header
        first_row, last_row = max(0, (top - 1) // self._height), min(self._rows, -(-(top + height + 1) // self._height))
        first = max(0, (left - 1) // self._width)
        last = min(self._columns, -(-(left + width + 1) // self._width))
        right = min(h.width, last * self._width)
        if first and right - first * self._width < _MIN_WIDTH:
            first -= 1
        small = bytearray(self._data[: h.scan])
        size = min(h.height, last_row * self._height) - first_row * self._height, right - first * self._width
        struct.pack_into(">HH", small, h.frame + 5, *size)
        index = np.arange(first_row, last_row)[:, None] * self._columns + np.arange(first, last + 1)
        bounds, data = self._bounds[index], memoryview(self._data)
        rows = zip(bounds[:, 0].tolist(), bounds[:, -1].tolist(), strict=True)
        marks = len(small) - 1 + np.cumsum(bounds[:, 1:] - bounds[:, :-1])
        small = bytearray().join([small, *(data[start:end] for start, end in rows)])
        # Markers must count 0 to 7 over and over: renumber those of the joined segments, and end the image.
        np.frombuffer(small, np.uint8)[marks] = _RESTARTS[: len(marks)]
        small[-1] = END
        return small, top - first_row * self._height, left - first * self._width


def find_segments(data: bytes | bytearray, header: JpegHeader) -> RestartSegments | None:
    """Return the restart segments of a JPEG file, or None if it has no usable ones.

    Usable: one 8-bit baseline scan, gray or YCbCr with a usual sampling, with all its markers, and segments that are
    equal parts of a row.
    """
    if not header.interval or header.kind not in (BASELINE, EXTENDED) or header.precision != 8:
        return None
    if len(header.sampling) > 1 and header.sampling not in _UPSAMPLED_EXACTLY:
        return None
    columns, over = divmod(-(-header.width // header.mcu_width), header.interval)
    rows = -(-header.height // header.mcu_height)
    if over or header.scan_components != len(header.sampling) or rows * columns > len(_RESTARTS):
        return None
    if len(data) - header.scan > _MAX_SCAN:
        return None
    scan = np.frombuffer(data, np.uint8, offset=header.scan)
    # In a scan, 0xFF begins a marker, but 0xFF 0x00 is a data byte 0xFF.
    marks = np.flatnonzero((scan[:-1] == 0xFF) & (scan[1:] != 0))
    if len(marks) != rows * columns or marks[-1] + 2 != len(scan) or scan[-1] != END:
        return None
    if scan[marks[:-1] + 1].tobytes() != _RESTARTS[: len(marks) - 1].tobytes():
        return None
    return RestartSegments(data, header, rows, columns, np.concatenate(([0], marks + 2)) + header.scan)
