"""What a run runs with: versions, host, commit, command line."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision

from resnext_train import __version__


def environment() -> dict[str, Any]:
    """Return versions, host, git commit, whether its files were changed, and command line."""
    return {
        "versions": {
            "resnext_train": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a class of its own, which weights_only does not load
            "torchvision": torchvision.__version__,
        },
        "host": socket.gethostname(),
        **_git_commit(),
        "command": [_program(sys.argv[0]), *sys.argv[1:]],
    }


def _program(path: str) -> str:
    """Return by which name this tool was called; `python -m resnext_train` is resnext."""
    name = Path(path).name
    return "resnext" if name == "__main__.py" else name


def _git_commit() -> dict[str, Any]:
    """Return the commit of the checkout that this package runs from; null where it is installed or git is absent."""
    package = Path(__file__).resolve().parent.parent
    if not (package.parent / ".git").exists():
        return {"git_commit": None}
    if (commit := _git(package, "rev-parse", "HEAD")) is None:
        return {"git_commit": None}
    changes = _git(package, "status", "--porcelain", "-uno")  # slow on a network's disk, where it may take too long
    return {"git_commit": commit, **({} if changes is None else {"git_changed": bool(changes)})}


def _git(place: Path, *arguments: str) -> str | None:
    """Return what git prints, without the locks by which it would get in the user's way; None if it fails."""
    command = ["git", "--no-optional-locks", "-C", os.fspath(place), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
