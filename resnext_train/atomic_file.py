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
def opened_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be written inside, piece by piece; see `write_atomically`, also for what is left after an error.

    Raises:
        OSError: at its beginning or end.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with removed_on_error(temporary):
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`; see `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


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
