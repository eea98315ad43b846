"""A table in lines for terminals. Imports no torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from resnext_train.errors import printable


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str, columns: int = 80) -> list[str]:
    """Return lines of columns two spaces apart, `columns` wide at most where the columns of numbers leave room.

    Columns of text (<) share the room that those of numbers (>) leave; what does not fit is cut. Control characters
    are escaped.
    """
    lines = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = _widths(lines)
    texts = [i for i, side in enumerate(sides) if side == "<"]
    room = columns - 2 * (len(widths) - 1) - sum(width for i, width in enumerate(widths) if i not in texts)
    for left, i in zip(range(len(texts), 0, -1), sorted(texts, key=lambda i: widths[i]), strict=True):
        widths[i] = min(widths[i], room // left)  # the narrowest first: others may have what it does not need
        room -= widths[i]
    padded = (
        "  ".join(_padded(cell, width, side) for cell, width, side in zip(line, widths, sides, strict=True))
        for line in lines
    )
    return [line.rstrip() for line in padded]


def table_width(head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the columns of a terminal that a table takes where nothing is cut."""
    widths = _widths([head, *([printable(cell) for cell in row] for row in rows)])
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(text_width(cell) for cell in column) for column in zip(*lines, strict=True)]


def _padded(cell: str, width: int, side: str) -> str:
    if text_width(cell) > width:
        while text_width(cell) > width - 3:
            cell = cell[:-1]
        cell = cell.rstrip() + "..."  # no ellipsis: not every console has one
    space = " " * (width - text_width(cell))
    return cell + space if side == "<" else space + cell


def text_width(text: str) -> int:
    """Return the columns of a terminal that text takes: two for East Asian letters, none for accents of their own."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
