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


class _Descriptor(io.FileIO):
    """A descriptor that writes all it is given; one that does not wait loses what it takes no more now."""

    def write(self, data: ReadableBuffer) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and (written := self._write(rest)) is not None:
            rest = rest[written:]
        return size

    def _write(self, data: memoryview) -> int | None:
        return super().write(data)


class _Strict(_Descriptor):
    """A descriptor whose errors are told from those of other files."""

    error: UnwrittenOutputError | None = None

    def _write(self, data: memoryview) -> int | None:
        try:
            return super()._write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.error = UnwrittenOutputError(error.errno, error.strerror)
            raise self.error from error


class _Lenient(_Descriptor):
    """A descriptor that loses what it cannot write."""

    def _write(self, data: memoryview) -> int | None:
        try:
            return super()._write(data)
        except OSError:  # what is printed is in a run's log as well, and on stderr there is nowhere to complain
            return None


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


def check_stdout() -> None:
    """Flush stdout; raise the error of an earlier write, too: argparse keeps it quiet.

    Raises:
        UnwrittenOutputError: something could not be written.
        BrokenPipeError: its reader has gone.
    """
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    if isinstance(raw, _Strict) and raw.error is not None:
        raise raw.error


def give_up_stdout() -> None:
    """Let what is still to be printed go nowhere, so that the interpreter does not fail in its last moment."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _raw(stream: TextIO) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _stream(raw: io.FileIO, like: TextIO | None) -> TextIO:
    """Return a text stream with the settings of another one; of stderr if that is None, as where it is closed."""
    if not isinstance(like, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", line_buffering=True)
    like.flush()
    unbuffered = like.write_through  # as by PYTHONUNBUFFERED
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]  # as Python's own
        like.encoding,
        like.errors,
        line_buffering=like.line_buffering,
        write_through=unbuffered,
    )
