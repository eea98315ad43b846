"""A table of a report, before it is text, CSV or HTML. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    numeric: bool = False
    """Whether its cells are aligned to the right."""
    optional: bool = False
    """Whether text leaves it out where there is no room for all."""


@dataclass(frozen=True)
class Table:
    """A table of texts, whose caption says what it shows."""

    key: str
    """A short name that is unique in a report: the anchor in HTML."""
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    """A text for each column; "" where nothing is known."""
