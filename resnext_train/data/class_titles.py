"""Titles of classes: their names in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def find_titles(classes: Sequence[str], file: str | None = None, root: Path | None = None) -> tuple[str, ...] | None:
    """Return the titles of `classes`; None: none are known."""
    return None
