"""Write files that are whole under their name, or not there. Imports no torch."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO


def write_temporary(path: Path, write: Callable[[IO[bytes]], object], suffix: str = "new") -> Path:
    """Let `write` fill a temporary file beside `path`; return it once it is safely on the disk.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{suffix}")
    temporary.unlink(missing_ok=True)  # what a killed process left, or a link that leads elsewhere
    with removed_on_error(temporary), temporary.open("xb") as file:
        try:
            write(file)
        except RuntimeError as error:
            raise _disk_error(error) or error from error
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _disk_error(error: BaseException | None) -> OSError | None:
    """Return the OSError behind a RuntimeError of torch.save, which reports a failed write as a broken archive."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def removed_on_error(temporary: Path) -> Iterator[None]:
    """Remove a temporary file if anything is raised inside."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the disk that failed may refuse this too
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], suffix: str = "new") -> None:
    """Let `write` fill a file, and give it its name once it is safely on the disk.

    Raises:
        OSError: it cannot be written; `path` is as it was, and nothing is left of the new content.
    """
    temporary = write_temporary(path, write, suffix)
    with removed_on_error(temporary):
        temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to fill, with a file or a folder, and rename it to `path` once all is on the disk.

    Its name keeps the suffix. If anything is raised inside, it is removed, and `path` never exists.

    Raises:
        OSError: it cannot be written, or `path` is a folder that is not empty.
    """
    temporary = path.with_name(f".new.{path.name}")
    _remove(temporary)
    try:
        yield temporary
        written = [temporary, *(temporary.rglob("*") if temporary.is_dir() else ())]
        for part in written:
            (sync_folder if part.is_dir() else _sync_file)(part)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise
    sync_folder(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`; see `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


class PendingFile:
    """A file that is written bit by bit, and has its name once `commit` is called. Nothing is left after `discard`."""

    def __init__(self, path: Path) -> None:
        """Open a temporary file beside `path` for writing.

        Raises:
            OSError: it cannot be opened.
        """
        self._path, self._temporary = path, path.with_name(f".{path.name}.new")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self._temporary.unlink(missing_ok=True)  # what a killed process left, or a link that leads elsewhere
        self.file: IO[bytes] = self._temporary.open("xb")

    def commit(self) -> None:
        """Give the file its name, once it is safely on the disk.

        Raises:
            OSError: it cannot be written, or another process has begun to write it; nothing is left of it.
        """
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            if not self._is_ours():
                raise OSError(errno.EBUSY, "another process writes it too", str(self._path))
            self._temporary.replace(self._path)
        except BaseException:
            self.discard()
            raise
        self.file.close()
        sync_folder(self._path.parent)

    def discard(self) -> None:
        """Remove the temporary file. What stops this is no matter, as on a disk that is full."""
        ours = not self.file.closed and self._is_ours()
        with suppress(OSError):  # what is in the buffer cannot be written
            self.file.close()
        if ours:
            with suppress(OSError):
                self._temporary.unlink()

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), self._temporary.stat())
        except OSError:
            return False


def link_atomically(source: Path, target: Path) -> None:
    """Make `target` a second name of `source`, or a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with source.open("rb") as file:
            write_temporary(target, lambda copy: shutil.copyfileobj(file, copy, 1 << 20))
    with removed_on_error(temporary):
        temporary.replace(target)
    temporary.unlink(missing_ok=True)  # which a rename leaves there where both are names of the same file


def free_name(path: Path) -> Path:
    """Return `path`, or a name like it, NAME-2 and so on, that nothing has."""
    names = (path.with_stem(f"{path.stem}-{n}") if n > 1 else path for n in count(1))
    return next(name for name in names if not os.path.lexists(name))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that cannot sync a folder
            raise
    finally:
        os.close(handle)
