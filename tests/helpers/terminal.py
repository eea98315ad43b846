"""A command on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from subprocess import Popen


def on_terminal(command: Sequence[str], columns: int, env: Mapping[str, str] = os.environ, **streams: int) -> str:
    """Run a command on a terminal of so many columns, but for the given streams; return what was written to it."""
    own, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    places = {"stdin": other, "stdout": other, "stderr": other} | streams
    wanted = {k: v for k, v in env.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    process = Popen(command, env=wanted, **places)  # type: ignore[call-overload]
    os.close(other)
    written = b""
    try:
        while chunk := os.read(own, 1 << 16):
            written += chunk
    except OSError:  # how Linux says that nobody writes any more
        pass
    process.wait(60)
    os.close(own)
    return written.decode()


def screens(written: str) -> list[str]:
    """What a line of the terminal showed, one after the other: each text up to the next return to its start."""
    return [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]+", written)]
