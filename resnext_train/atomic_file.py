"""Write files that are whole under their name, or not there. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_temporary(path: Path, write: Callable[[IO[bytes]], object], suffix: str = "new") -> Path:
    """Let `write` fill a temporary file beside `path`; return it once it is safely on the disk.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{suffix}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):  # the disk that failed may refuse this too
            temporary.unlink(missing_ok=True)
        raise _disk_error(error) from error
    return temporary


def _disk_error(error: BaseException) -> BaseException:
    """Return the OSError behind an error of torch.save, which reports a failed write as an inconsistent archive."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    return behind or error


def link_atomically(source: Path, target: Path) -> None:
    """Make `target` a second name of `source`, or a copy where the file system has no links."""
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    temporary.replace(target)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # those are file systems that cannot sync a folder
    finally:
        os.close(handle)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the content of `path` by `text`.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    write_temporary(path, lambda file: file.write(text.encode())).replace(path)
