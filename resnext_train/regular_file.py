"""Open and read regular files alone: a named pipe would hang, and a device may never end. Imports no torch."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_KINDS = {
    stat.S_IFIFO: "it is a named pipe, no file",
    stat.S_IFSOCK: "it is a socket, no file",
    stat.S_IFCHR: "it is a device, no file",
    stat.S_IFBLK: "it is a device, no file",
    stat.S_IFDIR: "it is a folder, no file",
}


class IrregularFileError(OSError):
    """Something that is no regular file; `strerror` says what it is."""

    def __init__(self, path: str, mode: int) -> None:
        super().__init__(errno.ENXIO, _KINDS.get(stat.S_IFMT(mode), "it is no file"), path)


class TooLargeFileError(OSError):
    """A file of more bytes than its reader takes."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(errno.EFBIG, f"it has more than {limit:,} bytes", path)


def user_path(text: str) -> Path:
    """Return a path with ~ and ~NAME at its start replaced; they stay where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  Path.expanduser raises RuntimeError there


def open_regular(path: str | Path) -> int:
    """Open a regular file for reading; return its descriptor.

    Raises:
        OSError: it cannot be opened, or is something else (IrregularFileError).
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise IrregularFileError(os.fspath(path), os.stat(path).st_mode) from error  # noqa: PTH116  may be a str
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise IrregularFileError(os.fspath(path), mode)
    return descriptor


def read_regular(path: str | Path, limit: int, offset: int = 0, size: int | None = None) -> bytes:
    """Read a regular file: all of it, or up to `size` bytes from `offset`.

    Raises:
        OSError: as `open_regular`; or there are more than `limit` bytes to read (TooLargeFileError).
    """
    descriptor = open_regular(path)
    try:
        if offset:
            os.lseek(descriptor, offset, os.SEEK_SET)
        # Files of the kernel state a size of 0, so the end is where nothing more comes.
        wanted = limit + 1 if size is None else size
        expected = os.fstat(descriptor).st_size - offset if size is None else size
        if min(expected, wanted) > limit:
            raise TooLargeFileError(os.fspath(path), limit)
        chunks, got = [], 0
        while got < wanted and (chunk := os.read(descriptor, min(wanted - got, max(expected - got + 1, 1 << 12)))):
            chunks.append(chunk)
            got += len(chunk)
    finally:
        os.close(descriptor)
    if got > limit:
        raise TooLargeFileError(os.fspath(path), limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def why_no_file(path: str | Path) -> str:
    """Return why `path` is no regular file, such as "not found"; "" if it is one."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  may be a str
    except FileNotFoundError:
        return "not found"
    except (OSError, ValueError) as error:  # the latter for a name with a zero byte
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return "" if stat.S_ISREG(mode) else f"cannot be read: {_KINDS.get(stat.S_IFMT(mode), 'it is no file')}"
