"""Recognise image formats by their first bytes, not by file names."""

from __future__ import annotations

from pathlib import PurePosixPath

from resnext_train.data.decode.jpeg_header import BadImageError, JpegHeader, read_header

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WebP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
_ARITHMETIC = range(0xC9, 0xD0)
_HUFFMAN = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive."""


def format_of(data: bytes) -> str:
    """Return JPEG, PNG, GIF, WebP, BMP, TIFF or "another format"."""
    starts = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
    starts |= {b"II*\0": "TIFF", b"MM\0*": "TIFF"}
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in starts.items() if data.startswith(start)), "another format")


def header_of(data: bytes) -> JpegHeader | None:
    """Return the header of a JPEG, or None for other formats and damaged headers."""
    try:
        return read_header(data)
    except BadImageError:
        return None


def why_not_rewritten(data: bytes, header: JpegHeader | None) -> str:
    """Return why jpegtran cannot add restart markers, such as "CMYK JPEG", or "" if it can."""
    if header is None:
        format_ = format_of(data)
        return "JPEG with a damaged header" if format_ == "JPEG" else format_
    if header.kind in _ARITHMETIC:
        return "arithmetic-coded JPEG"
    if header.precision != 8:
        return f"{header.precision}-bit JPEG"
    if header.kind not in _HUFFMAN:
        return "lossless JPEG"
    if len(header.sampling) not in (1, 3):
        return "CMYK JPEG" if len(header.sampling) == 4 else f"JPEG of {len(header.sampling)} components"
    return ""


def oddity(data: bytes, name: str) -> str:
    """Return what is unusual about a readable image, such as "PNG named .JPEG", or ""."""
    format_, suffix = format_of(data), PurePosixPath(name).suffix
    depth = "16-bit " if format_ == "PNG" and data[24:25] == b"\x10" else ""
    if suffix.lower() not in _SUFFIXES.get(format_, ()):
        return f"{depth}{format_} named {suffix}" if suffix else f"{depth}{format_} without a suffix"
    if format_ != "JPEG":
        return depth and f"{depth}{format_}"
    return why_not_rewritten(data, header_of(data))


def is_gray_jpeg(data: bytes) -> bool:
    """Return whether `data` is a JPEG of one component."""
    header = header_of(data)
    return header is not None and len(header.sampling) == 1
