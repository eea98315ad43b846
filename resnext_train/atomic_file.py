"""Files that are whole under their name or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_beside(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """A file beside `path` with what `write` writes, on the disk for good."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):  # the disk that failed may refuse this too
            fresh.unlink(missing_ok=True)
        raise _disk_error(error) from error
    return fresh


def _disk_error(error: BaseException) -> BaseException:
    """The OSError behind an error of torch.save, which reports a failed write as an inconsistent archive."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    return behind or error


def link(source: Path, target: Path) -> None:
    """Make `target` a second name of `source`, atomically; a copy where the file system has no links."""
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.link(source, fresh)
    except OSError:
        shutil.copyfile(source, fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
    fresh.replace(target)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # else a file system that cannot do this for folders
    finally:
        os.close(handle)


def replace_text(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # a read-only disk refuses this too
            fresh.unlink(missing_ok=True)
        raise
