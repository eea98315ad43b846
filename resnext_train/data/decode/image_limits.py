"""How large an image may be."""

from __future__ import annotations

from resnext_train.data.decode.jpeg_header import BadImageError

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: at this size the pixels take 300 MB, decoding up to twice that,
and each loader process may hold one."""

MAX_ASPECT = 250
"""Images whose long side is more than this many times the short one are refused: evaluation resizes the short side, and
the long one with it. At this ratio a short side of 632 makes MAX_PIXELS; usual ones are 224 to 600 pixels."""


def check_size(height: int, width: int) -> None:
    """Raise BadImageError for an image of more than MAX_PIXELS, or longer than MAX_ASPECT times its short side."""
    if height * width > MAX_PIXELS:
        raise BadImageError(f"the image of {width:,} × {height:,} pixels is larger than the limit of {MAX_PIXELS:,}")
    if height > MAX_ASPECT * width or width > MAX_ASPECT * height:
        raise BadImageError(
            f"the image of {width:,} × {height:,} pixels is longer than the limit of {MAX_ASPECT} times its short side"
        )
