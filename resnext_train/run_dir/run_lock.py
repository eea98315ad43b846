"""A lock that keeps a second run out of a run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from pathlib import Path
from typing import TextIO

from resnext_train.errors import InputError
from resnext_train.regular_file import open_regular


def holder_of(path: Path) -> str | None:
    """Return who has locked the file `path`, without writing to it; None if nobody has."""
    try:
        with os.fdopen(open_regular(path), errors="replace") as file:
            holder = file.read(1000).strip()
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return holder or "another process"
    except OSError:  # there is none, it cannot be read, or the file system has no locks
        return None
    return None


class RunLock:
    """A lock on a run folder; the system releases it when the process ends, however it ends."""

    _PATIENCE = 15.0
    """Seconds to wait for another run: a killed one may take some to end."""

    def __init__(self, path: Path) -> None:
        """Lock the file `path`.

        Raises:
            InputError: another process has locked it.
            OSError: it cannot be written.
        """
        self._path = path
        self._file = self._open()
        deadline = time.monotonic() + self._PATIENCE
        while not (self._try() and self._is_there()):
            if time.monotonic() > deadline:
                self._file.seek(0)
                holder = self._file.read().strip() or "another process"
                self._file.close()
                raise InputError(f"{path.parent} is in use by {holder}; stop that run first, or choose another --out")
            time.sleep(0.2)
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def _is_there(self) -> bool:
        """Return whether the locked file still has its name; if not, open the one that has."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return True
        self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        return False

    def _open(self) -> TextIO:
        """Open the file, or make it; not one that a link leads to, nor one with another name elsewhere."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EPERM, f"{self._path.name} is a link or no file; remove it")
        return os.fdopen(descriptor, "a+")

    def _try(self) -> bool:
        try:
            # Not flock: loader processes would inherit it, and outlive a killed run by some seconds.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # of file systems without locks
                raise
        return True

    def close(self) -> None:
        """Release the folder; remove it if no run was started in it."""
        folder = self._path.parent
        if not (folder / "recipe.yaml").exists():
            with contextlib.suppress(OSError):  # the folder holds something else, or the disk is read-only
                self._path.unlink()
                folder.rmdir()
        self._file.close()
