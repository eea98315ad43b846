"""What the commands share: how errors are shown and which process speaks."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import time
from collections.abc import Callable


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run `command`; the exit code is 0, or after one sentence:

    - 2 for bad input,
    - 1 for a fault that ended a run,
    - 75 for a run that was told to stop and has saved itself (EX_TEMPFAIL of sysexits.h: try again),
    - 141 if nobody reads its output on.

    Under torchrun each host's first process speaks for its others, but for what one of them met alone.
    """
    from resnext_train.errors import FaultError, InputError, LocalInputError, Preempted

    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_left():
            raise
        if name != "resnext-info":  # which has nothing to lose
            _print_last_line(f"{name}: ended, because nobody reads its output any more")
        return 141  # as a shell says it of a program that ends so
    except InputError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, LocalInputError):
            _print_last_line(f"{name}: error: {error}")
        else:
            time.sleep(5)  # torchrun ends all processes as soon as one leaves: let the first one speak
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _print_last_line(f"{name}: error: a name of {len(str(error.filename))} characters is too long for a path")
        return 2
    except FaultError as error:
        if is_main() or error.report_here:
            _print_last_line(f"{name}: error: {error}")
        return 1
    except Preempted as stop:
        if is_main():
            _print_last_line(f"{name}: {stop}")
        return 75
    except KeyboardInterrupt:
        if is_main():
            _print_last_line(f"{name}: interrupted")
        return 130
    return 0


def _print_last_line(text: str) -> None:
    """A last line; what happened is in the exit code too, if nobody reads it any more."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _reader_left() -> bool:
    """Whether what reads our output is gone, as `head` is after ten lines; then nothing more is written to it."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    left = any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def is_main() -> bool:
    """Whether this is the process that speaks: torchrun's rank 0."""
    return os.environ.get("RANK", "0") == "0"


def announce(text: str = "") -> None:
    """Print a line, from the first process only; names in it may hold anything, see `printable`."""
    from resnext_train.errors import printable

    if is_main():
        print(printable(text), flush=True)
