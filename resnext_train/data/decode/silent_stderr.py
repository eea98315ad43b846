"""Keep C libraries from printing to the console."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Lose what C libraries print, to whatever has the number 2."""
    nowhere, console = _nowhere(), os.dup(2)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(console, 2)
        os.close(console)


@functools.cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)
