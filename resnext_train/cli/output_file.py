"""A file that an option names, written piece by piece."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from resnext_train.atomic_file import opened_atomically
from resnext_train.errors import InputError


class OutputFile:
    """Text for the file of an option: atomic, unless it is stdout, a pipe or a device. A context.

    Names that are not UTF-8 become their own bytes again.

    Raises:
        InputError: it cannot be written.
        BrokenPipeError, UnwrittenOutputError: it is stdout, which takes no more.
    """

    def __init__(self, option: str, file: str) -> None:
        self._option, self._file = option, file
        self.is_stdout = _is_stdout(file)
        self._stack = ExitStack()
        self._stream: IO[bytes]

    def __enter__(self) -> OutputFile:
        with self._explained():
            self._stream = self._stack.enter_context(self._opened())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):  # of what is still to be written; the error goes on
                self._stack.__exit__(kind, error, trace)
            return
        with self._explained():
            self._stack.close()

    def write(self, text: str) -> None:
        with self._explained():
            self._stream.write(text.encode("utf-8", "surrogateescape"))

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        path = Path(self._file)
        if self.is_stdout:
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.flush()
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with opened_atomically(path.resolve()) as file:  # a link stays one
                yield file

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.is_stdout:
                raise
            raise InputError(f"{self._option}: {self._file} cannot be written: {error.strerror}") from error


def _is_stdout(file: str) -> bool:
    """Return whether a name such as /dev/stdout leads to where stdout does."""
    try:
        there, stdout = os.stat(file), os.fstat(1)  # noqa: PTH116  may be any text
    except OSError:
        return False
    return os.path.samestat(there, stdout)
