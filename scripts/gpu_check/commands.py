"""Run commands of the package as processes. Imports no torch."""

from __future__ import annotations

import subprocess
import sys

from scripts.gpu_check.report import Host


def resnext(host: Host, *arguments: str) -> str:
    """Run `python -m resnext_train ARGUMENTS` and return its output.

    Raises:
        RuntimeError: it failed; with its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "resnext_train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=host.seconds,
        cwd=host.folder,
    )
    if done.returncode:
        print(done.stdout)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(f"`resnext {arguments[0]}` ended with exit code {done.returncode}: {last[:300]}")
    return done.stdout
