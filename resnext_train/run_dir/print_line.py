"""Lines on the console."""

from __future__ import annotations

import contextlib
import sys

from tqdm import tqdm

from resnext_train.errors import printable


def print_line(text: str) -> None:
    """Show a line on the console. A console that is gone or full is no reason to lose a run: the log has it all."""
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(printable(text), file=sys.stderr)
