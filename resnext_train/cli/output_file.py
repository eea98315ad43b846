"""A file that an option names, written piece by piece."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from resnext_train.atomic_file import PendingFile
from resnext_train.errors import InputError
from resnext_train.run_dir.result_file import text_in_utf8


class OutputFile:
    r"""Text for the file of an option: atomic, unless it is stdout, a pipe or a device. A context.

    Bytes of a path that are no text are written as \udcXX.

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
            self._stream.write(text_in_utf8(text).encode())

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
            pending = PendingFile(path.resolve())  # a link stays one
            try:
                yield pending.file
            except BaseException:
                pending.discard()
                raise
            pending.commit()

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
