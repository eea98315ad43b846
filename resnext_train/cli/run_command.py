"""Run a command: turn errors into messages and exit codes, and let one rank print."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

from resnext_train.cli.console_streams import UnwrittenOutputError, check_stdout, give_up_stdout
from resnext_train.distributed.last_words import print_last_line, tell_torchrun
from resnext_train.distributed.process_limits import exceeded_limit
from resnext_train.distributed.rank import launcher_pid, rank_in_messages
from resnext_train.errors import FaultError, InputError, LocalInputError, Preempted, ReportedInputError, printable


def run_command(name: str, command: Callable[[], int | None], only_prints: bool = False) -> int:
    """Run `command` and return its exit code: its own, 0 for None, or after one line on stderr

    - 1: a fault ended the run, a limit of the system did, or stdout takes no more
    - 128 + N: signal N ended one of its processes, and none could say more
    - 2: bad input
    - 75: the run was stopped by a signal and saved its state (EX_TEMPFAIL of sysexits.h: try again)
    - 130: interrupted
    - 141: the reader of the output has closed it; no line if the command `only_prints`, and so has no work to lose

    Of several ranks, rank 0 prints faults and local rank 0 bad input, except those that only another rank has met.
    """
    try:
        return _run_command(name, command, only_prints)
    except Exception:
        tell_torchrun(traceback.format_exc())
        raise


def _run_command(name: str, command: Callable[[], int | None], only_prints: bool) -> int:
    try:
        code = command()
        check_stdout()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        if not only_prints:
            print_last_line(f"{name}: ended, because nobody reads its output any more")
        return 141  # 128 + SIGPIPE, as a shell reports it
    except UnwrittenOutputError as error:
        give_up_stdout()
        print_last_line(f"{name}: error: its output cannot be written: {error.strerror}")
        return 1
    except InputError as error:
        if isinstance(error, ReportedInputError):
            return 2
        if rank_in_messages().is_first_on_host or isinstance(error, LocalInputError):
            print_last_line(f"{name}: error: {error}")
        else:
            time.sleep(5)  # the launcher ends all ranks when one exits: let local rank 0 print first
        return 2
    except FaultError as error:
        if rank_in_messages().is_main or error.report_here:
            print_last_line(f"{name}: error: {error}")
        return error.exit_code
    except (OSError, MemoryError, RuntimeError) as error:
        if limit := exceeded_limit(error):
            print_last_line(f"{name}: error: {limit}")
            return 1
        if not (isinstance(error, OSError) and (mistake := _mistake_in_path(error))):
            raise
        print_last_line(f"{name}: error: {mistake}")
        return 2
    except Preempted as stop:
        if launcher_pid() is not None:  # a second Ctrl-C must not change the exit code, which says that all is saved
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if rank_in_messages().is_main:
            print_last_line(f"{name}: {stop}")
        return 75
    except KeyboardInterrupt:
        if rank_in_messages().is_main:
            print_last_line(f"{name}: interrupted")
        if launcher_pid() is not None:
            # Python ends by SIGINT where this came within an exec(), as of dataclasses, and then its launcher says so.
            os._exit(130)
        return 130
    return code or 0


def _mistake_in_path(error: OSError) -> str | None:
    """Return a sentence about the path of an error that a user can correct, or None for another error."""
    path = printable(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else ""
    if error.errno == errno.ENAMETOOLONG:
        return f"a name of {len(path)} characters is too long for a path"
    if error.errno == errno.ENOENT and not _is_anywhere():
        return "the folder in which this command runs is gone; change to another one"
    if error.errno in (errno.EACCES, errno.EPERM) and path:
        return f"{path}: {error.strerror}; allow this user to read and write there, or choose another place"
    return None


def _is_anywhere() -> bool:
    """Return whether the current folder is still there."""
    try:
        os.getcwd()  # noqa: PTH109  Path.cwd is the same
    except FileNotFoundError:
        return False
    return True


def _reader_has_gone() -> bool:
    """Return whether the reader of stdout has closed it, as `head` does; if so, redirect stdout to /dev/null."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
    if gone:
        give_up_stdout()
    return gone


def announce(text: str = "") -> None:
    """Print a line on rank 0 only, with control characters in it escaped (see `printable`)."""
    if rank_in_messages().is_main:
        print(printable(text), flush=True)


def warn(text: str) -> None:
    """Print a warning to stderr, on rank 0 only."""
    if rank_in_messages().is_main:
        with contextlib.suppress(OSError):
            print(printable(f"warning: {text}"), file=sys.stderr, flush=True)
