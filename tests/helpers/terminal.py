"""A command on a terminal of its own."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from helpers.commands import Command
from helpers.ranks import start_command


def on_terminal(
    command: Command,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    stderr: Path | None = None,
) -> str:
    """Run a command on a terminal of 80 columns, but for the streams given as files; what was written to it."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    places = [Path(os.ttyname(other)), stdout, stderr]
    (process,) = start_command(command, 1, *arguments, prepare=partial(_use, places, dict(env or {})))
    written = b""
    while process.is_alive() or select.select([own], [], [], 0)[0]:
        if select.select([own], [], [], 0.05)[0]:
            written += os.read(own, 1 << 16)
    for end in (own, other):
        os.close(end)
    return written.decode()


def _use(places: list[Path | None], env: Mapping[str, str]) -> None:
    """Open the streams of this process anew, as an interpreter does that is started on a terminal."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    os.environ |= {"TERM": "xterm", **env}
    for number, place in enumerate(places):
        file = os.open(place or places[0] or os.devnull, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]


def _stream(number: int) -> io.TextIOWrapper:
    raw = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", line_buffering=os.isatty(number) or number == 2)


def screens(written: str) -> list[str]:
    """What a line of the terminal showed, one after the other: each text up to the next return to its start."""
    return [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]+", written)]
