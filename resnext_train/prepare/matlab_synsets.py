"""Read the classes in the devkit's meta.mat by SciPy, in a process of its own.

On some damaged files SciPy's reader crashes, and on others it takes all memory. The process runs this file as a
program, so nothing of the package is imported here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
from typing import NamedTuple

_MEMORY_LIMIT = 2_000_000_000
"""Bytes of address space that the process may take; the real devkit's takes 0.4 GB, most of it libraries."""

_TIME_LIMIT = 60.0


class Synset(NamedTuple):
    """A class of the hierarchy."""

    number: int
    """ILSVRC2012_ID: leaves have 1 to 1000."""
    name: str
    """WordNet's number of it, such as n01440764."""
    words: str
    children: int


def read_synsets(meta: bytes) -> list[Synset]:
    """Return the classes in the bytes of a meta.mat.

    Raises:
        ValueError: it holds none, or SciPy cannot read it within limits of time and memory.
    """
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            [sys.executable, __file__],
            input=meta,
            capture_output=True,
            check=False,
            timeout=_TIME_LIMIT,
            env=os.environ | one_thread,  # each more would take addresses
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"meta.mat takes SciPy over {_TIME_LIMIT:.0f} s") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(reason[:200] or f"SciPy ended by signal {-done.returncode}")
    return [Synset(*row) for row in json.loads(done.stdout)]


def _main() -> None:
    with contextlib.suppress(ValueError):  # macOS takes no limit below the addresses that a process has already
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    import numpy as np
    from scipy.io import loadmat

    meta = io.BytesIO(sys.stdin.buffer.read())
    synsets = np.atleast_1d(loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"])
    rows = [(int(s["ILSVRC2012_ID"]), str(s["WNID"]), str(s["words"]), int(s["num_children"])) for s in synsets]
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    _main()
