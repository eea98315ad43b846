"""Files of an evaluation's results: whole under their name or not there, but pipes and devices. Imports no torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from resnext_train.atomic_file import PendingFile
from resnext_train.errors import InputError
from resnext_train.regular_file import user_path
from resnext_train.run_dir.jsonl_sink import to_json


class _Stream:
    """A pipe or device: what is written is out. It is closed, whatever comes."""

    def __init__(self, path: Path) -> None:
        self.file = _open_stream(path)

    def commit(self) -> None:
        self.file.close()

    def discard(self) -> None:
        with suppress(OSError):  # what is in the buffer has no reader any more
            self.file.close()


def is_stream(file: str) -> bool:
    """Return whether `file` is a pipe or device, or what this process prints to, as /dev/stdout may be a file."""
    path = user_path(file)
    return _printed_to(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _printed_to(path: Path) -> int | None:
    """Return the descriptor, 1 or 2, that has this file open; None: neither."""
    for descriptor in (1, 2):
        with suppress(OSError, ValueError):  # it is closed, or the file is not there, or no name of one
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
    return None


def _open_stream(path: Path) -> IO[bytes]:
    descriptor = _printed_to(path)
    if descriptor is None:
        return path.open("wb")
    return os.fdopen(os.dup(descriptor), "wb")  # to open a file anew would write over what is printed, from its start


def open_result(file: str) -> PendingFile | _Stream:
    """Open `file` for writing to its `.file`, until `commit` or `discard`.

    Raises:
        OSError: it cannot be opened.
    """
    return _Stream(user_path(file)) if is_stream(file) else PendingFile(user_path(file).resolve())  # a link stays one


@contextmanager
def refusals_explained(option: str, file: str | Path) -> Generator[None]:
    """Raise an InputError for an OSError inside: `file`, which `option` named, cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{option}: {file} cannot be written: {error.strerror or error}") from error


def write_result(file: str | Path, option: str, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill `file`, which `option` named.

    Raises:
        InputError: it cannot be written; a file that was there is as it was.
    """
    with refusals_explained(option, file):
        opened = open_result(str(file))
        try:
            write(opened.file)
        except BaseException:
            opened.discard()
            raise
        opened.commit()


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    r"""Return rows as CSV with \n behind each; fields that hold either line end are quoted."""
    lines = _CsvLines()
    csv.writer(lines).writerows(rows)  # with another line end than \r\n it would not quote fields that hold \r
    return "".join(lines.lines)


class _CsvLines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Take one row, which is what csv.writer writes at a time."""
        self.lines.append(line.removesuffix("\r\n") + "\n")


def text_in_utf8(text: str) -> str:
    r"""Return `text` with what UTF-8 does not have as \udcXX: a byte of a file's name that is no text."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def write_json(file: str | Path, option: str, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON to `file`, which `option` named; numbers that JSON does not have become null.

    Raises:
        InputError: see `write_result`.
    """
    text = to_json(value, indent=indent) + "\n"
    write_result(file, option, lambda opened: opened.write(text.encode()))
