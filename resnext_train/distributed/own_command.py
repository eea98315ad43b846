"""How a process of this tool starts another one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def own_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs `resnext ARGUMENTS` by this Python."""
    return [sys.executable, *_safe_path(), "-m", "resnext_train", *arguments]


def _safe_path() -> tuple[str, ...]:
    """Return the option by which `python -m` does not import from the current folder first; `resnext` does not either.

    Python 3.10 has none.
    """
    folders = {Path(folder).resolve() for folder in sys.path}
    return ("-P",) if sys.version_info >= (3, 11) and Path().resolve() not in folders else ()
