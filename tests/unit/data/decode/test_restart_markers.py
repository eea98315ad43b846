"""Boxes decoded alone against the same boxes of the whole image as torchvision decodes it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from resnext_train.data.decode.jpeg_header import BadImageError, read_header
from resnext_train.data.decode.lazy_image import open_image
from resnext_train.data.decode.restart_markers import find_segments

Box = tuple[int, int, int, int]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85, **options)
    return file.getvalue()


def restart_jpeg(width: int, height: int, sampling: str, interval: int) -> bytes:
    if sampling == "gray":
        return encode(noise(width, height).convert("L"), restart_marker_blocks=interval)
    if sampling != "4:4:0":
        return encode(noise(width, height), subsampling=sampling, restart_marker_blocks=interval)
    # No library here writes 4:4:0. Its MCU is Y Y Cb Cr as that of 4:2:2 is, but tall instead of wide: so a 4:2:2 file
    # with as many MCUs in a row and in a column becomes one by its header alone.
    wide = noise(16 * -(-width // 8), 8 * -(-height // 16))
    data = bytearray(encode(wide, subsampling="4:2:2", restart_marker_blocks=interval))
    frame = read_header(data).frame
    struct.pack_into(">HH", data, frame + 5, height, width)
    assert data[frame + 11] == 0x21
    data[frame + 11] = 0x12
    return bytes(data)


def whole(data: bytes) -> torch.Tensor:
    decoded: torch.Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return decoded


def boxes(width: int, height: int, rng: np.random.Generator) -> Iterator[Box]:
    """Single pixels in the corners, lines along the edges and across, and random boxes: top, left, height, width."""
    for top in (0, height - 1):
        yield from ((top, left, 1, 1) for left in (0, width - 1))
        yield top, 0, 1, width
    yield from ((0, left, height, 1) for left in (0, width // 2, width - 1))
    yield height // 2, 0, 1, width
    for _ in range(4):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        yield top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))


@pytest.mark.parametrize("interval", [1, 2, 3, 4])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:4:0", "gray"])
def test_a_box_has_the_pixels_of_the_whole_image(sampling: str, interval: int) -> None:
    rng = np.random.default_rng(interval)
    in_parts = 0
    for width in range(1, 101):
        height = 1 + 37 * width % 60
        data = restart_jpeg(width, height, sampling, interval)
        header = read_header(data)
        assert (header.width, header.height, header.interval) == (width, height, interval)
        in_parts += find_segments(data, header) is not None
        expected = whole(data)
        for top, left, h, w in boxes(width, height, rng):
            part = open_image(data).region(top, left, h, w)
            assert torch.equal(part, expected[:, top : top + h, left : left + w]), (width, height, (top, left, h, w))
    mcu = 16 if sampling in ("4:2:2", "4:2:0") else 8
    assert in_parts == sum(-(-width // mcu) % interval == 0 for width in range(1, 101))


@pytest.mark.parametrize("sampling", ["4:2:0", "4:2:2", "4:4:4", "gray"])
def test_every_small_box_of_an_image(sampling: str) -> None:
    """A last MCU that is one to three pixels wide is where chroma would be upsampled in another way."""
    for width, height in ((33, 17), (35, 19)):
        data = restart_jpeg(width, height, sampling, 1)
        image, expected = open_image(data), whole(data)
        for top in range(height - 1):
            for left in range(width - 1):
                part = image.region(top, left, 2, 2)
                assert torch.equal(part, expected[:, top : top + 2, left : left + 2])


def test_only_what_covers_the_box_is_decoded() -> None:
    data = restart_jpeg(640, 480, "4:2:0", 4)
    segments = find_segments(data, read_header(data))
    assert segments is not None
    small, top, left = segments.cut(200, 300, 64, 64)
    header = read_header(small)
    # MCUs of 16 × 16 four by four: rows 199 to 265 lie in MCU rows 12 to 16, columns 299 to 365 in the fifth and sixth
    assert (header.height, header.width) == (5 * 16, 2 * 64)
    assert (top, left) == (200 - 12 * 16, 300 - 4 * 64)
    assert len(small) < len(data) / 10
    assert torch.equal(whole(bytes(small))[:, top : top + 64, left : left + 64], whole(data)[:, 200:264, 300:364])


def without_marker(data: bytes) -> bytes:
    at = data.index(b"\xff\xd3")
    return data[:at] + data[at + 2 :]


def out_of_order(data: bytes) -> bytes:
    return data.replace(b"\xff\xd3", b"\xff\xd2", 1)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "marker missing": without_marker,
    "marker out of order": out_of_order,
    "no end": lambda data: data[:-2],
    "bytes behind the end": lambda data: data + b"more",
    "second image behind the first": lambda data: data + data,
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_whose_markers_do_not_fit_are_decoded_whole(change: str) -> None:
    data = CHANGES[change](restart_jpeg(64, 48, "4:2:0", 2))
    header = read_header(data)
    assert find_segments(data, header) is None
    try:
        expected = whole(data)
    except RuntimeError:
        with pytest.raises(BadImageError):
            open_image(data).region(5, 6, 7, 8)
        return
    assert torch.equal(open_image(data).region(5, 6, 7, 8), expected[:, 5:12, 6:14])


def test_kinds_of_jpeg_that_have_no_segments_of_use() -> None:
    progressive = encode(noise(64, 48), restart_marker_blocks=2, progressive=True)
    cmyk = encode(noise(64, 48).convert("CMYK"), restart_marker_blocks=2)
    for data in (progressive, cmyk, encode(noise(64, 48))):
        assert find_segments(data, read_header(data)) is None
        assert torch.equal(open_image(data).region(5, 6, 7, 8), whole(data)[:, 5:12, 6:14])


def test_a_jpeg_of_rgb_keeps_its_colours() -> None:
    data = encode(noise(64, 48), restart_marker_blocks=2, keep_rgb=True)
    assert find_segments(data, read_header(data)) is not None
    assert torch.equal(open_image(data).region(5, 6, 7, 8), whole(data)[:, 5:12, 6:14])


@pytest.mark.parametrize("length", [*range(2, 30), 150, 400, 600])
def test_a_header_cut_short_is_refused_in_a_sentence(length: int) -> None:
    data = encode(noise(16, 16))
    assert length < read_header(data).scan
    with pytest.raises(BadImageError, match=r"JPEG"):
        read_header(data[:length])


def test_fill_bytes_and_a_size_of_nothing() -> None:
    data = encode(noise(16, 16))
    at = read_header(data).frame
    assert read_header(data[:at] + b"\xff\xff" + data[at:])[:2] == (16, 16)
    empty = bytearray(data)
    struct.pack_into(">H", empty, at + 5, 0)
    with pytest.raises(BadImageError, match=r"JPEG .*size"):
        read_header(empty)


def cut_in_scan_header(kept: int) -> bytes:
    """A JPEG with restart markers that ends `kept` bytes after the two of the marker of its scan."""
    data = restart_jpeg(64, 48, "4:2:0", 2)
    return data[: data.index(b"\xff\xda") + 2 + kept]


def endless_scan_header() -> bytes:
    data = bytearray(restart_jpeg(64, 48, "4:2:0", 2))
    struct.pack_into(">H", data, data.index(b"\xff\xda") + 2, 0xFFFF)
    return bytes(data)


@pytest.mark.parametrize("data", [*(cut_in_scan_header(kept) for kept in range(3, 12)), endless_scan_header()])
def test_a_scan_header_that_reaches_beyond_the_data(data: bytes) -> None:
    with pytest.raises(BadImageError, match=r"JPEG header .*damaged"):
        read_header(data)
    with pytest.raises(BadImageError):
        open_image(data).region(5, 6, 7, 8)


@pytest.mark.parametrize("length", [0, 1])
def test_a_segment_shorter_than_its_length_is_damage(length: int) -> None:
    data = bytearray(encode(noise(16, 16)))
    struct.pack_into(">H", data, data.index(b"\xff\xda") + 2, length)
    with pytest.raises(BadImageError, match=r"JPEG header .*damaged"):
        read_header(data)
