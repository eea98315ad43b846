"""One picture of many mistakes: images with what they are and what they were taken for. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.errors import printable
from resnext_train.evaluation.mistakes import Mistake
from resnext_train.evaluation.sheet_text import SheetFont
from resnext_train.run_dir.result_file import write_result

Picture = Callable[[int], "Image.Image | NDArray[np.uint8]"]
"""Returns an image by its number, or its pixels, uint8 (height, width, 3); raises BadImageError or OSError."""

_CELL, _GAP, _MARGIN = 192, 20, 28
"""Pixels of a picture's side, between two pictures, and around all of them."""

_COLUMNS, _FEWEST_COLUMNS = 8, 4
"""Pictures in a row; the fewest that a sheet is wide, so that its header fits."""

_BACKGROUND, _PANEL = "#fafafa", "#ececec"
_INK, _GREY, _GREEN, _RED = "#1c1c1c", "#767676", "#1a6b2f", "#b3261e"

_LEGEND = "below each: what it is; the probability of what it was taken for; its file"

_TITLE_LINES = 2
"""Lines that a title may take."""


class _Line(NamedTuple):
    text: str
    font: SheetFont
    color: str


def draw_sheet(
    file: str | Path,
    mistakes: Sequence[Mistake],
    picture: Picture,
    name: Callable[[int], str],
    titles: Sequence[str],
    header: Sequence[str],
    option: str = "--mistakes",
) -> None:
    """Write a PNG with the pictures of `mistakes`, in rows of eight.

    Below each is what it is, what it was taken for with its probability, and the file's name. `header` are lines above
    all, the first of them large, such as the network and its accuracy. A picture that cannot be read has a note in its
    place. `titles` are those of the classes, by number.

    Raises:
        InputError: `file`, which `option` named, cannot be written.
    """
    heading, text, small = SheetFont(24), SheetFont(15), SheetFont(13)
    captions = [_caption(mistake, titles, name(mistake.number), (text, small)) for mistake in mistakes]
    columns = min(_COLUMNS, max(_FEWEST_COLUMNS, len(mistakes)))
    width = columns * (_CELL + _GAP) - _GAP
    fonts = [heading, *[text] * len(header)]
    lines = zip([*header, _LEGEND if mistakes else "no mistakes"], fonts, strict=True)
    head = [_Line(font.shortened(line, width), font, _GREY if i else _INK) for i, (line, font) in enumerate(lines)]
    tops = [_MARGIN + _height(head) + _GAP]
    for first in range(0, len(captions), columns):
        tops.append(tops[-1] + _CELL + 6 + max(map(_height, captions[first : first + columns])) + _GAP)
    sheet = Image.new("RGB", (width + 2 * _MARGIN, tops[-1] + _MARGIN - _GAP), _BACKGROUND)
    _write_lines(sheet, _MARGIN, _MARGIN - 6, head)
    for place, (mistake, caption) in enumerate(zip(mistakes, captions, strict=True)):
        row, column = divmod(place, columns)
        left, top = _MARGIN + column * (_CELL + _GAP), tops[row]
        _draw_picture(sheet, left, top, _fitted(picture, mistake.number), small)
        _write_lines(sheet, left, top + _CELL + 6, caption)
    write_result(file, option, lambda opened: sheet.save(opened, "PNG"))


def _caption(mistake: Mistake, titles: Sequence[str], name: str, fonts: tuple[SheetFont, SheetFont]) -> list[_Line]:
    text, small = fonts
    # The number comes first, so that no long title pushes it out.
    taken_for = f"{100 * mistake.score:.1f} % {titles[mistake.predicted]}" if mistake.score >= 0 else "NaN"
    lines = [
        _Line(line, text, color)
        for title, color in ((titles[mistake.label], _GREEN), (taken_for, _RED))
        for line in text.wrapped(title, _CELL, _TITLE_LINES)
    ]
    file = printable(PurePath(name).name or name)
    return [*lines, _Line(small.shortened(file, _CELL, keep_end=True), small, _GREY)]


def _fitted(picture: Picture, number: int) -> Image.Image | str:
    """Return a picture scaled to the cell, its shape kept, or why there is none."""
    try:
        found = picture(number)
        image = found if isinstance(found, Image.Image) else Image.fromarray(np.ascontiguousarray(found))
        image = image.convert("RGB")
    except (BadImageError, OSError) as error:
        return printable(str(getattr(error, "strerror", None) or error))
    scale = _CELL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Bicubic makes small images soft, but people see more in them than in squares.
    return image.resize((width, height), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _draw_picture(sheet: Image.Image, left: int, top: int, picture: Image.Image | str, font: SheetFont) -> None:
    ImageDraw.Draw(sheet).rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_PANEL)
    if isinstance(picture, str):
        lines = ["cannot be read:", *font.wrapped(picture, _CELL - 24, 8)]
        _write_lines(sheet, left + 12, top + 12, [_Line(line, font, _GREY) for line in lines])
    else:
        sheet.paste(picture, (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2))


def _height(lines: Sequence[_Line]) -> int:
    return sum(line.font.height for line in lines)


def _write_lines(sheet: Image.Image, left: int, top: int, lines: Sequence[_Line]) -> None:
    draw = ImageDraw.Draw(sheet)
    for line in lines:
        text, font = line.font.drawable(line.text)
        draw.text((left, top), text, font=font, fill=line.color)
        top += line.font.height
