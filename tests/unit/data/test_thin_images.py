"""Images far longer than they are wide: refused alike wherever images are read, and for the same reason."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.commands import Refuses, evaluate, prepare, train
from helpers.images import save_image
from helpers.packs import JPEGTRAN, packed
from resnext_train.data.decode.image_limits import MAX_ASPECT, MAX_PIXELS, check_size
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.data.decode.lazy_image import decode, open_image
from resnext_train.data.pack.pack_format import UNREADABLE
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sources.packed_images import PackedImages
from resnext_train.data.transforms.crop_transforms import EvalTransform
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier, make_record

WHY = r"{} × {} pixels is longer than the limit of 250 times its short side"

TIERS = [Tier("exact", None, None, JPEGTRAN), Tier("resized", 256, 92, JPEGTRAN), Tier("raw", 256, None, None)]


def image(width: int, height: int, form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(("width", "height"), [(1, 251), (251, 1), (4, 1001), (65_500, 1), (1, 65_500)])
def test_thin_images_are_refused_by_every_reader(width: int, height: int, form: str) -> None:
    data = image(width, height, form)
    why = WHY.format(f"{width:,}", f"{height:,}")
    with pytest.raises(BadImageError, match=why):
        open_image(data)
    with pytest.raises(BadImageError, match=why):
        decode(data)
    for tier in TIERS:
        record = make_record(data, "a.JPEG", tier, verify=True)
        assert (record.kind, record.data) == (UNREADABLE, data)
        assert re.search(why, record.odd)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(("width", "height"), [(1, 250), (250, 1), (4, 1000)])
def test_images_up_to_the_limit_are_packed_and_evaluated(width: int, height: int, form: str) -> None:
    data = image(width, height, form)
    for tier in TIERS:
        assert make_record(data, "a.JPEG", tier, verify=True).kind != UNREADABLE
    crop = EvalTransform(256, 224, "bilinear")(open_image(data))
    assert np.abs(crop.permute(1, 2, 0).numpy().astype(int) - (10, 200, 30)).max() <= 4


def test_resizing_for_evaluation_stays_within_the_limit_of_pixels() -> None:
    """For short sides of up to 632; and what the resized tier makes at its usual size still is a JPEG."""
    assert math.isqrt(MAX_PIXELS // MAX_ASPECT) == 632
    check_size(632, 632 * MAX_ASPECT)
    assert 256 * MAX_ASPECT <= 65_500


def flat_png(width: int, height: int) -> bytes:
    """A gray PNG of zeros, compressed without its pixels being held at once by an encoder."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = zlib.compress(bytes((width + 1) * height), 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_what_is_too_long_for_a_jpeg_once_resized_is_kept_as_unreadable() -> None:
    """libjpeg writes sides of 65,500 pixels at most."""
    data = flat_png(264, 264 * 250)
    record = make_record(data, "a.png", Tier("resized", 263, 92, JPEGTRAN), verify=False)
    assert (record.kind, record.data) == (UNREADABLE, data)
    assert re.search(r"263 × 65,750 .*JPEG", record.odd)


def test_a_thin_array_in_a_pack_from_elsewhere(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An array of 30 × 40 pixels that its index calls 1 × 1,200, with valid digests."""
    save_image(image_root / "train" / "cat" / "0.JPEG", (40, 30))
    folder = tmp_path / "pack"
    packed(FolderSplit(image_root / "train"), folder, TIERS[2])
    file, columns = folder / "index.bin", PackIndex(folder).header.columns
    for name, value in {"height": 1, "width": 1200}.items():
        data = bytearray(file.read_bytes())
        struct.pack_into("<I", data, columns[name]["offset"], value)
        file.write_bytes(data)
    index = PackIndex(folder)
    file.write_bytes(file.read_bytes().replace(index.header.digest.encode(), index.columns_digest().encode()))
    why = WHY.format("1,200", "1")
    with pytest.raises(BadImageError, match=why):
        PackedImages(folder).image(0)
    assert prepare(["check", str(folder), "--workers", "1"]) == 1
    assert re.search(f"bad: cat/0.JPEG: .*{why}", capsys.readouterr().out)


RUN = [
    *("--config", "smoke.yaml", "data.source=folder", "data.workers=0", "augment.size=32", "eval.resize=36"),
    *("eval.crop=32", "eval.batch_size=4", "train.batch_size=8", "train.micro_batch=4", "train.epochs=1"),
    *("model.arch=resnext14_2x4d", "schedule.warmup=0", "log.to=[]"),
]


@pytest.mark.slow
def test_commands_say_why(
    image_root: Path, tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*RUN, f"data.root={image_root}", "--out", str(tmp_path / "run")]) == 0
    why = WHY.format(1, 300)
    for split in ("train", "val"):
        (image_root / split / "cat" / "1.JPEG").write_bytes(image(1, 300, "JPEG"))
    capsys.readouterr()
    told = refuses(train, *RUN, f"data.root={image_root}", "--out", str(tmp_path / "other"))
    assert re.search(f"train/cat/1.JPEG .*{why}", told)
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.pt")
    assert re.search(f"val/cat/1.JPEG .*{why}", refuses(evaluate, "--ckpt", checkpoint))
    assert prepare(["check", str(image_root), "--workers", "1"]) == 1
    assert len(re.findall(f"bad: cat/1.JPEG: .*{why}", capsys.readouterr().out)) == 2
    for tier in ("exact", "resized", "raw"):
        pack = tmp_path / tier
        prepare(["pack", str(image_root), str(pack), "--tier", tier, "--workers", "1"])
        assert re.search(f"cat/1.JPEG.*{why}", capsys.readouterr().out)
        told = refuses(evaluate, "--ckpt", checkpoint, "--data", str(pack))
        assert re.search(f"cat/1.JPEG .*{why}", told)
