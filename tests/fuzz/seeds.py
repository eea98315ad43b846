"""What is mutated: small images of every format, and a small pack of each tier."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_records import Tier, find_jpegtran
from resnext_train.prepare.pack_split import pack_split

Pack = dict[str, bytes]
"""The files of a pack by name."""


def tiers() -> dict[str, Tier]:
    jpegtran = find_jpegtran()
    return {
        "exact": Tier("exact", None, None, jpegtran),
        "resized": Tier("resized", 20, 92, jpegtran),
        "raw": Tier("raw", 20, None, None),
    }


def photo(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def images() -> dict[str, bytes]:
    """One image of each kind, by name; JPEGs with and without restart markers."""
    rgb = photo(80, 56, 0)
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "gray": (rgb.convert("L"), {}),
        "cmyk": (rgb.convert("CMYK"), {}),
        "rgb": (rgb, {"keep_rgb": True}),
        **{sampling: (rgb, {"subsampling": sampling}) for sampling in ("4:2:0", "4:2:2", "4:4:4")},
        "narrow": (photo(33, 47, 1), {}),
        "exif": (rgb, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    }
    found = {}
    for name, (image, options) in kinds.items():
        for restart in (0, 1, 5):
            for progressive in (False, True):
                title = f"{name}{' progressive' * progressive}{f' restart {restart}' * bool(restart)}.jpg"
                found[title] = encoded(
                    image, quality=80, restart_marker_blocks=restart, progressive=progressive, **options
                )
    alpha = rgb.copy()
    alpha.putalpha(99)
    deep = Image.fromarray((np.arange(1200).reshape(30, 40) * 50).astype(np.uint16))
    small = rgb.quantize(16)
    found |= {
        "rgb.png": encoded(rgb, "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "palette.png": encoded(small, "PNG"),
        "palette.gif": encoded(small, "GIF"),
        "animation.gif": encoded(small, "GIF", save_all=True, append_images=[photo(80, 56, 2).quantize(16)]),
        "lossy.webp": encoded(rgb, "WEBP"),
        "lossless.webp": encoded(alpha, "WEBP", lossless=True),
        "rgb.bmp": encoded(rgb, "BMP"),
        "palette.bmp": encoded(small, "BMP"),
        "rgb.tif": encoded(rgb, "TIFF"),
        "deflate.tif": encoded(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded(rgb, "TIFF", compression="jpeg"),
        "rgb.ppm": encoded(rgb, "PPM"),
    }
    return found


def packs() -> dict[str, Pack]:
    """A pack of two classes for each tier."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        root = Path(name)
        for i in range(6):
            folder = root / "images" / f"c{i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {"subsampling": ("4:2:0", "4:4:4")[i % 2], "progressive": i == 2}
            (folder / f"{i}.JPEG").write_bytes(encoded(photo(40 + 8 * i, 60 - 6 * i, i), **options))
        (root / "images" / "c1" / "6.JPEG").write_bytes(encoded(photo(24, 30, 6), "PNG"))
        (root / "images" / "c1" / "7.JPEG").write_bytes(b"no image")
        for tier_name, tier in tiers().items():
            pack_split(FolderSplit(root / "images"), root / tier_name, tier, 1, 1, lambda _: None)
            found[tier_name] = {path.name: path.read_bytes() for path in sorted((root / tier_name).iterdir())}
    return found
