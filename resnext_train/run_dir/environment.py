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
    """Return versions, host, git commit and command line, for the start event."""
    return {
        "versions": {
            "resnext_train": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "host": socket.gethostname(),
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def _git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from; None where it is installed or git is absent."""
    package = Path(__file__).resolve().parent.parent
    if not (package.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", os.fspath(package), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
