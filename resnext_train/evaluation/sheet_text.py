"""Text in pictures: which font can show it, and how it fits a width. Imports no torch."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from functools import lru_cache
from itertools import chain

from PIL import ImageFont

from resnext_train.errors import MissingLibraryError

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_OTHER_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf", "Arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "Hiragino Sans GB.ttc", "AppleGothic.ttf"),
)
"""Fonts of Linux and macOS for text that Pillow's own, which has ASCII and little more, cannot show."""

_ELLIPSIS = "…"


class SheetFont:
    """Pillow's own font in one size, and others where it lacks letters."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.height = round(1.3 * size)
        """Pixels from line to line."""

    def drawable(self, text: str) -> tuple[str, _Font]:
        """Return a font that shows `text`; where there is none, `text` in letters that Pillow's font has.

        Raises:
            MissingLibraryError: Pillow was built without FreeType.
        """
        own = _own_font(self._size)
        others = (_other_font(name, self._size) for name in _OTHER_FONTS)
        font = next((f for f in chain((own,), others) if f is not None and _shows(f, text)), None)
        return (text, font) if font else ("".join(_plain(own, c) for c in text), own)

    def width(self, text: str) -> float:
        """Return the pixels that a line of `text` takes."""
        shown, font = self.drawable(text)
        return float(font.getlength(shown))

    def shortened(self, text: str, width: float, keep_end: bool = False) -> str:
        """Return `text`, with an ellipsis for what does not fit: its end; or, with `keep_end`, its middle."""
        if self.width(text) <= width:
            return text
        low, high = 0, len(text)  # letters that are kept
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.width(_cut(text, middle, keep_end)) <= width else (low, middle)
        return _cut(text, low, keep_end)

    def wrapped(self, text: str, width: float, most: int) -> list[str]:
        """Return `text` in at most `most` lines, broken between words where that is possible; the last is shortened."""
        lines: list[str] = []
        words = text.split()
        while words and len(lines) < most - 1:
            taken = 1
            while taken < len(words) and self.width(" ".join(words[: taken + 1])) <= width:
                taken += 1
            line, words = " ".join(words[:taken]), words[taken:]
            if self.width(line) > width:  # one word alone, as in languages without spaces
                fits = len(self.shortened(line, width)) - 1
                line, words = line[:fits], [line[fits:], *words]
            lines.append(line)
        return [*lines, self.shortened(" ".join(words), width)] if words else lines


def _cut(text: str, kept: int, keep_end: bool) -> str:
    end = kept // 2 if keep_end else 0
    return text[: kept - end].rstrip() + _ELLIPSIS + text[len(text) - end :]


@lru_cache(maxsize=64)
def _own_font(size: int) -> _Font:
    try:
        return ImageFont.load_default(size)
    except ImportError as error:
        raise MissingLibraryError("to write in pictures, Pillow needs FreeType, which its wheels contain") from error


@lru_cache(maxsize=64)
def _other_font(name: str, size: int) -> _Font | None:
    """Return a font of this system by its file's name, or None."""
    with suppress(OSError):
        return ImageFont.truetype(name, size)
    return None


def _shows(font: _Font, text: str) -> bool:
    return all(_has(font, c) for c in set(text) if not c.isspace())


@lru_cache(maxsize=1 << 16)
def _has(font: _Font, letter: str) -> bool:
    """Return whether a font has a letter: what it draws is not what it draws for one that no font has."""
    drawn, missing = font.getmask(letter), font.getmask("\uffff")
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _plain(font: _Font, letter: str) -> str:
    """Return a letter, or else it without its accents, or else a question mark."""
    if letter.isspace() or _has(font, letter):
        return letter
    plain = unicodedata.normalize("NFKD", letter)[0]
    return plain if plain.isspace() or _has(font, plain) else "?"
