"""Turn an encoded image into a pack's record.

exact     a JPEG with the same pixels and restart markers, for decoding in part; other files unchanged
resized   a JPEG with a short side of at most N pixels and restart markers; smaller images as in exact
raw       an array with a short side of at most N pixels, uint8 (height, width, 3)
"""

from __future__ import annotations

import io
import random
import shutil
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from resnext_train.data.decode.jpeg_header import BadImageError, JpegHeader, is_jpeg, read_header
from resnext_train.data.decode.lazy_image import decode, open_image
from resnext_train.data.decode.restart_markers import find_segments
from resnext_train.data.pack.pack_format import PIXELS, RESTART, UNREADABLE, VERBATIM
from resnext_train.prepare.file_formats import header_of, oddity, why_not_rewritten
from resnext_train.prepare.jpegtran import run_jpegtran

_INTERVALS = (4, 3, 2, 1)
"""MCUs between restart markers: the first of these that divides a row of MCUs, so that the segments form a grid.
Longer segments make the file smaller, shorter ones fit a crop more closely."""

_LONGEST_JPEG = 65_500
"""Pixels of the longest side that libjpeg writes."""


@dataclass(frozen=True)
class Tier:
    """A tier and its settings."""

    name: Literal["exact", "resized", "raw"]
    size: int | None
    """Pixels of the short side; None in exact."""
    quality: int | None
    """JPEG quality; None in exact and raw."""
    jpegtran: str | None
    """Path of the program; None: not installed, files are kept unchanged."""

    @property
    def settings(self) -> dict[str, Any]:
        settings = {k: v for k, v in asdict(self).items() if v is not None and k in ("size", "quality")}
        if self.size is not None:
            settings["interpolation"] = "bicubic"
        return settings if self.name == "raw" else {**settings, "jpegtran": self.jpegtran is not None}


def find_jpegtran() -> str | None:
    """Return the path of jpegtran, or None if it is not installed."""
    return shutil.which("jpegtran")


class Record(NamedTuple):
    """An image as a pack stores it."""

    data: bytes
    kind: int
    height: int
    width: int
    odd: str
    """What is unusual about it or why it is unreadable, or ""."""


class _DifferenceError(Exception):
    """A rewritten file differs from its original; the message says how."""


def make_record(data: bytes, name: str, tier: Tier, verify: bool) -> Record:
    """Return the record of an encoded image; with `verify`, decode a rewritten file whole and in part and compare."""
    try:
        if tier.name == "exact":
            return _make_exact(data, name, tier.jpegtran, verify)
        assert tier.size is not None
        pixels = decode(data)
        small = _shrink(pixels, tier.size)
        if tier.name == "raw":
            _, height, width = small.shape
            record = small.permute(1, 2, 0).contiguous().numpy().tobytes()
            return Record(record, PIXELS, height, width, oddity(data, name))
        if small is pixels:
            return _make_exact(data, name, tier.jpegtran, verify)
        assert tier.quality is not None
        return _encode(small, tier.quality, oddity(data, name), verify)
    except BadImageError as error:
        return Record(data, UNREADABLE, 0, 0, str(error))


def _shrink(pixels: Tensor, size: int) -> Tensor:
    """Resize to a short side of `size` pixels; return a smaller image itself."""
    if min(pixels.shape[1:]) <= size:
        return pixels
    small: Tensor = F.resize(pixels, [size], InterpolationMode.BICUBIC, antialias=True)
    return small


def _encode(pixels: Tensor, quality: int, odd: str, verify: bool) -> Record:
    _, height, width = pixels.shape
    if max(height, width) > _LONGEST_JPEG:
        raise BadImageError(f"resized, it would be {width:,} × {height:,} pixels, too long for a JPEG")
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(
        file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, restart_marker_blocks=_interval(width, 16)
    )
    data = file.getvalue()
    if verify:
        try:
            _check_parts(data, decode(data))
        except _DifferenceError as error:
            raise BadImageError(str(error)) from error
    return Record(data, RESTART, height, width, odd)


def _make_exact(data: bytes, name: str, jpegtran: str | None, verify: bool) -> Record:
    header = header_of(data)
    why = why_not_rewritten(data, header) or ("" if jpegtran else "no jpegtran")
    if not why:
        assert header is not None
        assert jpegtran is not None
        try:
            small = _rewrite(data, header, jpegtran)
            if verify:
                _check_same(data, small)
            if find_segments(small, read_header(small)) is None:
                raise _DifferenceError("JPEG of a sampling that is always decoded whole")
            return Record(small, RESTART, header.height, header.width, "")
        except _DifferenceError as error:
            why = str(error)
    _, height, width = decode(data).shape
    return Record(data, VERBATIM, height, width, "" if why == "no jpegtran" else oddity(data, name) or why)


def _rewrite(data: bytes, header: JpegHeader, jpegtran: str) -> bytes:
    """Return the same DCT coefficients with a restart marker every few MCUs."""
    out = _transcode(data, _interval(header.width, header.mcu_width), jpegtran)
    after = header_of(out)
    if after is not None and after.mcu_width != header.mcu_width:
        # jpegtran chose other sampling factors, which change the grid of MCUs: repeat with an interval for these.
        out = _transcode(data, _interval(after.width, after.mcu_width), jpegtran)
        after = header_of(out)
    if after is None or (after.height, after.width) != (header.height, header.width):
        raise _DifferenceError("jpegtran changed its size")
    return out


def _transcode(data: bytes, interval: int, jpegtran: str) -> bytes:
    done = run_jpegtran(jpegtran, ("-copy", "none", "-optimize", "-restart", f"{interval}B"), data)
    if done.failure:
        raise _DifferenceError(done.failure)
    return done.data


def check_stream(data: bytes, jpegtran: str | None) -> None:
    """Check a JPEG's entropy-coded data with jpegtran: decoders only warn if it is damaged or incomplete.

    Without `jpegtran`, and for other formats, which Pillow refuses when damaged, check nothing.

    Raises:
        BadImageError: the data is damaged.
    """
    if jpegtran is None or not is_jpeg(data):
        return
    failure = run_jpegtran(jpegtran, ("-copy", "none"), data).failure
    if failure and "extraneous bytes" not in failure:  # those change no pixel
        raise BadImageError(f"its data is damaged: {failure}")


def _interval(width: int, mcu_width: int) -> int:
    """Return the MCUs between restart markers for an image of this width."""
    row = -(-width // mcu_width)
    return next(k for k in _INTERVALS if row % k == 0)


def _check_same(data: bytes, rewritten: bytes) -> None:
    """Compare a rewritten file with the original, decoded whole and in part.

    Raises:
        _DifferenceError: it has other pixels.
        BadImageError: the original cannot be decoded.
    """
    pixels = decode(data)
    try:
        if not torch.equal(decode(rewritten), pixels):
            raise _DifferenceError("a rewritten copy would have other pixels")
    except BadImageError as error:
        raise _DifferenceError(f"a rewritten copy could not be read: {error}") from error
    _check_parts(rewritten, pixels)


def _check_parts(data: bytes, pixels: Tensor) -> None:
    """Raise _DifferenceError unless boxes decoded alone equal the same boxes of the whole image."""
    image = open_image(data)
    _, rows, columns = pixels.shape
    for top, left, height, width in _boxes(rows, columns, random.Random(zlib.crc32(data))):
        try:
            part = image.region(top, left, height, width)
        except BadImageError as error:
            raise _DifferenceError(f"a part of it could not be read alone: {error}") from error
        if not torch.equal(part, pixels[:, top : top + height, left : left + width]):
            raise _DifferenceError("a part of it, decoded alone, would have other pixels")


def _boxes(height: int, width: int, rng: random.Random) -> list[tuple[int, int, int, int]]:
    """Return (top, left, height, width) of a random box in each corner, of one pixel, and of three boxes anywhere."""
    boxes = []
    for down in (False, True):
        for right in (False, True):
            h, w = rng.randint(1, height), rng.randint(1, width)
            boxes.append(((height - h) * down, (width - w) * right, h, w))
    boxes.append((rng.randrange(height), rng.randrange(width), 1, 1))
    for _ in range(3):
        h, w = rng.randint(1, height), rng.randint(1, width)
        boxes.append((rng.randint(0, height - h), rng.randint(0, width - w), h, w))
    return boxes
