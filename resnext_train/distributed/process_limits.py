"""What the system allows this process and those that it starts. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import sys
import tempfile

from resnext_train.errors import InputError

_LEAST_FILES = 128
"""Open files that a run with two loader processes needs, with a margin."""

_MOST_FILES = 65_536, 10_240
"""Open files that suffice for any run; and those that macOS allows where it states no limit but refuses more."""

_LEAST_ADDRESSES = 4_000_000_000
"""Bytes of address space without which torch cannot be imported; it takes 3.3 GB with the libraries of a GPU."""

_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of a socket's path at most."""

_SOCKET_NAME = len("/pymp-abcdefgh/listener-abcdefgh")
"""What multiprocessing adds to the folder of temporary files."""


def allow_open_files() -> None:
    """Raise this process's limit of open files to what any run needs, as far as the system lets it."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in _MOST_FILES:
        wanted = min(_number(most), number)
        if _number(files) >= wanted:
            return
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            return


def check_process_limits() -> None:
    """Check that the open files and the address space that this process may have suffice.

    Raises:
        InputError: they do not.
    """
    files = _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if files < _LEAST_FILES:
        raise InputError(
            f"this process may open only {files} files, and needs {_LEAST_FILES} or more; raise it by ulimit -n 1024"
        )
    addresses = _number(resource.getrlimit(resource.RLIMIT_AS)[0])
    if addresses < _LEAST_ADDRESSES:
        raise InputError(
            f"this process may use only {addresses / 1e9:.1f} GB of address space (ulimit -v), and torch needs "
            f"{_LEAST_ADDRESSES / 1e9:.0f} GB or more; raise it by ulimit -v unlimited"
        )


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def check_socket_folder() -> None:
    """Check that processes can pass things on through sockets, whose paths lie in the folder of temporary files.

    Raises:
        InputError: its path is too long.
    """
    folder = tempfile.gettempdir()
    if (length := len(os.fsencode(folder))) + _SOCKET_NAME > _SOCKET_PATH:
        raise InputError(
            f"the folder of temporary files has a path of {length} bytes, but processes reach each other by sockets "
            f"there, which allow {_SOCKET_PATH - _SOCKET_NAME}; set TMPDIR to a shorter one, such as /tmp ({folder})"
        )


_MANY_FILES = re.compile("(?i)too many open files")
_NO_THREAD = re.compile("(?i)can't start new thread|resource temporarily unavailable")
_NO_MEMORY = re.compile("(?i)out of memory|can't allocate memory|cannot allocate memory|bad_alloc")
"""In errors of Python and torch, whose type is RuntimeError."""


def exceeded_limit(error: BaseException) -> str | None:
    """Return a sentence about the limit of the system that an error is about, or None for another error."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error) if isinstance(error, RuntimeError) else ""
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _NO_MEMORY.search(text):
        more = f" ({text.partition(chr(10))[0][:150]})" if text else ""
        return (
            f"memory ran out{more}; make train.micro_batch, eval.batch_size, the images or the network smaller, or use "
            "fewer data.workers"
        )
    if number in (errno.EMFILE, errno.ENFILE) or _MANY_FILES.search(text):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many files are open, {limit} at most (ulimit -n); allow more, or use fewer data.workers"
    if number == errno.EAGAIN or _NO_THREAD.search(text):
        return (
            "no more processes or threads may be started (ulimit -u), or memory for them (ulimit -v) is short; allow "
            "more, or use fewer data.workers"
        )
    return None
