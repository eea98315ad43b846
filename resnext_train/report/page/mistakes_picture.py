"""The picture of a run's most confident mistakes, small enough to be part of a page. Imports no torch."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from resnext_train.regular_file import read_regular

_MAX_BYTES = 1 << 26

_SIZES = ((3, 1400, 62), (6, 1200, 55), (12, 1000, 50))
"""Up to so many pictures in a page are so many pixels wide, at this quality: together up to some 1.5 MB."""


@dataclass(frozen=True)
class Picture:
    """A picture in a page."""

    uri: str
    """All of it, as a data URI."""
    width: int
    height: int


def read_mistakes(path: Path, pictures: int) -> Picture:
    """Return the picture in `path`, one of so many in a page, scaled down.

    Raises:
        FileNotFoundError: there is none.
        OSError, ValueError: it cannot be read, or is no picture.
    """
    content = read_regular(path, _MAX_BYTES)
    width, quality = next(((w, q) for most, w, q in _SIZES if pictures <= most), _SIZES[-1][1:])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, SyntaxError, EOFError) as error:
        raise ValueError(str(error) or "it is damaged") from error
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, image.width, image.height)
