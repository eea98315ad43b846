"""What a run is run with: versions, host, commit, command line."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Versions, host, git commit and command line, for the start event."""
    import platform

    import torch
    import torchvision

    from resnext_train import __version__

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
    """The commit of the checkout that this package runs from, or None where it is installed or git is absent."""
    import subprocess

    package = Path(__file__).resolve().parent.parent
    if not (package.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(package), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
