"""The way in: of the installed commands, and of `python -m resnext_train`, which torchrun starts.

Imports nothing of the package up to here, because much of it cannot be imported on Windows.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def main() -> int:
    """Run `resnext`."""
    return _call("resnext", "main")


def train() -> int:
    """Run `resnext-train`: `resnext train` by a name of its own."""
    return _call("resnext-train", "train")


def evaluate() -> int:
    """Run `resnext-eval`: `resnext eval` by a name of its own."""
    return _call("resnext-eval", "evaluate")


def _call(name: str, function: str) -> int:
    """Call a function of cli/main.py; on Windows, say what to do instead."""
    if sys.platform == "win32":
        print(f"{name}: error: it does not run on Windows itself; use WSL 2 there, Linux or macOS", file=sys.stderr)
        return 2
    commands: Any = import_module("resnext_train.cli.main")
    code: int = getattr(commands, function)()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
