"""Two hosts on one machine: network namespaces joined by a cable, each with its own address and loopback device."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Hosts:
    """The two hosts, which share the machine's files."""

    names: tuple[str, str]
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2")

    def start(
        self, host: int, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `command` on host 0 or 1; what it prints is appended to the file `output`."""
        with output.open("ab") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[host], *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )

    def pids(self, host: int) -> list[int]:
        """All processes of a host."""
        return [int(pid) for pid in _ip("netns", "pids", self.names[host]).split()]

    def kill(self, host: int) -> None:
        """End all processes of a host at once, as a loss of power would."""
        deadline = time.monotonic() + 30
        while pids := self.pids(host):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes {pids} cannot be killed"
            time.sleep(0.01)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Two hosts that reach each other and nothing else; removed with their processes at the end, come what may.

    Skips the test, with the reason, where the machine does not allow it. Tests of it are marked `root`.
    """
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the command ip (iproute2)")
    unique = uuid.uuid4().hex[:8]
    hosts = Hosts((f"resnext-{unique}-0", f"resnext-{unique}-1"))
    try:
        try:
            _connect(hosts)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield hosts
    finally:
        present = _ip("netns", "list").split()
        for host, name in enumerate(hosts.names):
            if name in present:
                hosts.kill(host)
                _ip("netns", "delete", name)


def _connect(hosts: Hosts) -> None:
    for name in hosts.names:
        _ip("netns", "add", name)
    first, second = hosts.names
    _ip(*f"link add name eth0 netns {first} type veth peer name eth0 netns {second}".split())
    for name, address in zip(hosts.names, hosts.addresses, strict=True):
        _ip("-n", name, "address", "add", f"{address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout
