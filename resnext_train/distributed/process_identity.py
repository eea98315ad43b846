"""Tell whether another process of this host is still there. Imports no torch."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process among all of a run, wherever they are."""

    host: str
    """The machine, since it was last started."""
    pid_space: str
    """Where `pid` means this process: on the host, in a container."""
    pid: int
    started: str
    """Tells it from a later process with the same number; empty where the system does not say."""


def this_process() -> ProcessIdentity:
    """Return the identity of this process."""
    return identity_of(os.getpid())


def identity_of(pid: int) -> ProcessIdentity:
    """Return the identity of a process that this one sees under the number `pid`."""
    return ProcessIdentity(_this_host(), f"{_this_host()} {_pid_namespace()}", pid, _state(pid)[1])


def is_gone(process: ProcessIdentity) -> bool:
    """Return whether a process has ended; False for one that this process could not see."""
    if process.pid_space != f"{_this_host()} {_pid_namespace()}":
        return False
    try:
        if not Path("/proc/self/stat").exists():  # as on macOS
            os.kill(process.pid, 0)
            return False
        state, started = _state(process.pid)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False  # it is there, but hidden
    return state in "ZX" or started != process.started


@lru_cache(maxsize=1)
def _this_host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}".strip()


@lru_cache(maxsize=1)
def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, str]:
    """Return the state of a process, such as S, T (stopped) or Z (ended), and when it was started; "" if unknown."""
    if not Path("/proc/self/stat").exists():
        return "", ""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # before: the name, of any characters
    return fields[0], fields[19]
