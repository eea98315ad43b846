"""Standard streams that no closed, full or deserted console turns into a failure of the command. Imports no torch."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class UnwrittenOutputError(OSError):
    """Stdout takes no more, as on a full disk; `strerror` says why. That its reader has gone is a BrokenPipeError."""


class _Strict(io.FileIO):
    """A descriptor whose errors are told from those of other files."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return _all_if_none(super().write(data), data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UnwrittenOutputError(error.errno, error.strerror) from error


class _Lenient(io.FileIO):
    """A descriptor that loses what it cannot write."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return _all_if_none(super().write(data), data)
        except OSError:  # what is printed is in a run's log as well, and on stderr there is nowhere to complain
            return len(memoryview(data).cast("B"))


def _all_if_none(written: int | None, data: ReadableBuffer) -> int:
    """Return what was written; lose the rest where a descriptor that does not wait takes nothing now."""
    return len(memoryview(data).cast("B")) if written is None else written


def open_console() -> None:
    """Fill the closed ones of descriptors 0, 1 and 2, and print to 1 and 2 through `_Strict` and `_Lenient`.

    A file that is opened later must not get such a number: libraries print to them. Streams that this process has
    exchanged stay as they are.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is taken
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(_Strict(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_Lenient(2, "w", closefd=False), sys.stderr)


def lose_what_stdout_does_not_take() -> None:
    """Let no failed write to stdout end this command."""
    if isinstance(_raw(sys.stdout), _Strict):
        sys.stdout = _stream(_Lenient(1, "w", closefd=False), sys.stdout)


def give_up_stdout() -> None:
    """Let what is still to be printed go nowhere, so that the interpreter does not fail in its last moment."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _raw(stream: TextIO) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _stream(raw: io.FileIO, like: TextIO | None) -> TextIO:
    """Return a text stream with the settings of another one; of stderr if that is None, as where it is closed."""
    if not isinstance(like, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", line_buffering=True)
    like.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        like.encoding,
        like.errors,
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )
