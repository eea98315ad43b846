"""What becomes of an image in each tier."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from helpers.images import save_image
from helpers.packs import EXACT, JPEGTRAN, RAW, RESIZED, needs_jpegtran
from resnext_train.data.decode.jpeg_header import read_header
from resnext_train.data.decode.lazy_image import decode
from resnext_train.data.pack.pack_format import PIXELS, RESTART, UNREADABLE, VERBATIM
from resnext_train.prepare import pack_records
from resnext_train.prepare.pack_records import Tier, make_record


def image(size: tuple[int, int] = (70, 50), mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    """A smooth random image of (width, height), encoded; a JPEG unless `format` says otherwise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    file = io.BytesIO()
    smooth = coarse.resize(size, Image.Resampling.BICUBIC).convert("L" if mode == "I;16" else mode)
    smooth.convert(mode).save(file, **{"format": "JPEG", **options})
    return file.getvalue()


@needs_jpegtran
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"subsampling": "4:2:0", "progressive": True},
        {"mode": "L"},
        {"mode": "L", "progressive": True},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    ],
)
@pytest.mark.parametrize("size", [(70, 50), (1, 1), (17, 33), (500, 20)])
def test_exact_keeps_the_pixels_and_adds_restart_markers(options: dict[str, Any], size: tuple[int, int]) -> None:
    data = image(size, **options)
    record = make_record(data, "a/b.JPEG", EXACT, verify=True)
    assert (record.kind, record.odd) == (RESTART, "")
    assert (record.width, record.height) == size
    assert torch.equal(decode(record.data), decode(data))
    header = read_header(record.data)
    row = -(-header.width // header.mcu_width)
    assert header.interval == next(k for k in (4, 3, 2, 1) if row % k == 0)
    assert header.kind in (0xC0, 0xC1)


@needs_jpegtran
def test_gray_with_sampling_factors_of_colour() -> None:
    data = bytearray(image(mode="L"))
    frame = read_header(bytes(data)).frame
    data[frame + 11] = 0x22  # which some cameras and programs write; it changes nothing for one component
    record = make_record(bytes(data), "a.jpg", EXACT, verify=True)
    assert record.kind == RESTART
    assert torch.equal(decode(record.data), decode(bytes(data)))


@pytest.mark.parametrize(
    ("data", "name", "odd"),
    [
        (image(mode="CMYK"), "a.JPEG", "CMYK JPEG"),
        (image(format="PNG"), "a.JPEG", "PNG named .JPEG"),
        (image(format="GIF", mode="P"), "a.JPEG", "GIF named .JPEG"),
        (image(format="WEBP"), "a.jpeg", "WebP named .jpeg"),
        (image(format="BMP"), "a.JPEG", "BMP named .JPEG"),
        (image(format="TIFF"), "a.tif", "TIFF"),
        (image(format="PNG"), "a.png", "PNG"),
        (image(format="PNG", mode="I;16"), "a.png", "16-bit PNG"),
    ],
)
def test_other_formats_are_kept_as_they_are(data: bytes, name: str, odd: str) -> None:
    record = make_record(data, name, EXACT, verify=True)
    assert (record.data, record.kind, record.height, record.width) == (data, VERBATIM, 50, 70)
    if JPEGTRAN:
        assert record.odd == odd


@pytest.mark.parametrize("tier", [EXACT, RESIZED, RAW], ids=lambda t: t.name)
@pytest.mark.parametrize("data", [b"", b"no image", image()[:900], image(format="PNG")[:100]])
def test_what_nothing_reads_is_kept_and_named(data: bytes, tier: Tier) -> None:
    record = make_record(data, "a.JPEG", tier, verify=True)
    assert (record.data, record.kind, record.height, record.width) == (data, UNREADABLE, 0, 0)
    assert record.odd


def test_a_truncated_jpeg_is_found_without_verifying() -> None:
    assert make_record(image((200, 200))[:2000], "a.JPEG", EXACT, verify=False).kind == UNREADABLE


@pytest.mark.parametrize("size", [(70, 50), (50, 70), (30, 200)])
def test_resized_is_a_small_jpeg_with_restart_markers(size: tuple[int, int]) -> None:
    data = image(size, quality=100)
    record = make_record(data, "a.JPEG", RESIZED, verify=True)
    assert record.kind == RESTART
    assert min(record.height, record.width) == 24
    header = read_header(record.data)
    assert header.interval
    assert header.sampling == ((2, 2), (1, 1), (1, 1))
    expected = F.resize(decode(data), [24], InterpolationMode.BICUBIC, antialias=True)
    pixels = decode(record.data)
    assert pixels.shape == expected.shape
    assert (pixels.float() - expected.float()).abs().mean() < 6


@needs_jpegtran
def test_an_image_that_is_small_enough_keeps_its_pixels() -> None:
    data = image((24, 40))
    resized = make_record(data, "a.JPEG", RESIZED, verify=True)
    assert resized == make_record(data, "a.JPEG", EXACT, verify=True)
    raw = make_record(data, "a.JPEG", RAW, verify=True)
    assert raw.data == decode(data).permute(1, 2, 0).numpy().tobytes()


def test_raw_is_the_resized_array() -> None:
    data = image()
    record = make_record(data, "a.JPEG", RAW, verify=True)
    assert (record.kind, record.height, record.width) == (PIXELS, 24, 33)
    expected = F.resize(decode(data), [24], InterpolationMode.BICUBIC, antialias=True)
    assert record.data == expected.permute(1, 2, 0).contiguous().numpy().tobytes()


def test_without_jpegtran_jpegs_are_kept_as_they_are() -> None:
    data = image()
    record = make_record(data, "a.JPEG", Tier("exact", None, None, None), verify=True)
    assert (record.data, record.kind, record.odd) == (data, VERBATIM, "")


@pytest.mark.parametrize(
    ("script", "odd"),
    [
        ("cat {other}", "rewritten .*pixels"),
        ("cat {wrong_size}", "jpegtran .*size"),
        ("cat; exit 2", "jpegtran: exit code 2"),
        ("echo 'Corrupt JPEG data' >&2; exit 1", "jpegtran: Corrupt JPEG data"),
        ("echo nothing", "jpegtran .*size"),
    ],
)
def test_a_rewritten_file_that_is_not_the_same_is_not_taken(script: str, odd: str, tmp_path: Path) -> None:
    save_image(tmp_path / "other.jpg", (70, 50), seed=1)
    save_image(tmp_path / "wrong_size.jpg", (70, 51), seed=1)
    program = tmp_path / "jpegtran"
    script = script.format(other=tmp_path / "other.jpg", wrong_size=tmp_path / "wrong_size.jpg")
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    data = image()
    record = make_record(data, "a.JPEG", Tier("exact", None, None, str(program)), verify=True)
    assert (record.data, record.kind) == (data, VERBATIM)
    assert re.search(odd, record.odd)


@needs_jpegtran
def test_a_file_whose_parts_decode_otherwise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers that do not make a grid: parts of such a file would be cut from the wrong place."""
    monkeypatch.setattr(
        pack_records,
        "open_image",
        lambda data: type("Shifted", (), {"region": lambda _, *b: decode(data)[:, : b[2], : b[3]]})(),
    )
    record = make_record(image(), "a.JPEG", EXACT, verify=True)
    assert record.kind == VERBATIM
    assert re.search("part .*pixels", record.odd)
