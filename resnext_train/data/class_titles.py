"""Titles of classes: what people call them, beside the names of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def find_titles(classes: Sequence[str], file: str | None = None, root: Path | None = None) -> tuple[str, ...] | None:
    """Return the title of each class, or None where they are not known."""
    return None


def short_title(title: str) -> str:
    """Return the first of the words that a title lists."""
    return title.partition(",")[0]
