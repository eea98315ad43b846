"""Run jpegtran (of libjpeg-turbo) on one file, within limits of size, memory and time."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from typing import NamedTuple

from resnext_train.data.decode.lazy_image import open_image

MEMORY_LIMIT = 1_500_000_000
"""Bytes of address space that one run may take. A 4:4:4 JPEG of 100 million pixels, the largest that is read, takes
590 MB: its coefficients, 16 bits each. One of four components takes 800 MB."""

TIME_LIMIT = 120.0
"""Seconds that one run may take; the JPEG of 590 MB above takes 5."""


class Transcoded(NamedTuple):
    """What a run of jpegtran gave."""

    data: bytes
    failure: str
    """Why it failed, in one clause, or ""; after a mere warning there is data, too."""


def run_jpegtran(jpegtran: str, options: tuple[str, ...], data: bytes) -> Transcoded:
    """Run the program at `jpegtran` on the JPEG `data`.

    Raises:
        BadImageError: the image is larger than any that is read; jpegtran would take memory for the size that its
            header states.
    """
    open_image(data)
    pipe = subprocess.PIPE
    with subprocess.Popen([jpegtran, *options], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        _limit_memory(process.pid)  # before it gets its input, so that it has taken next to nothing
        try:
            out, errors = process.communicate(data, timeout=TIME_LIMIT)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                return Transcoded(b"", f"jpegtran took over {TIME_LIMIT:.0f} s")
            raise
    if not process.returncode:
        return Transcoded(out, "")
    said = errors.decode(errors="replace").strip().split("\n")[-1]  # 2 is a warning: the file is damaged
    return Transcoded(out, f"jpegtran: {said or f'exit code {process.returncode}'}")


def _limit_memory(pid: int) -> None:
    """Limit a process's address space where the system lets another process do so, which is Linux."""
    if not hasattr(resource, "prlimit"):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended already; or a container forbids it
        hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
        limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
