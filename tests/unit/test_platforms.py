"""What differs on systems other than Linux: what Python lacks there is taken away here."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resnext_train.distributed.process_limits import allow_open_files
from resnext_train.distributed.usable_cores import usable_cores
from resnext_train.prepare.matlab_synsets import read_synsets

WINDOWS = """
import signal, sys
sys.platform = "win32"
sys.modules["fcntl"] = sys.modules["resource"] = None
del signal.SIGUSR1, signal.SIGHUP, signal.pthread_sigmask
from resnext_train.__main__ import {function}
sys.exit({function}())
"""

MACOS = """
import os, signal
del signal.sigwaitinfo, signal.sigtimedwait
from resnext_train.distributed.stop_signals import outlive_stop_signals, signals_held_back
with signals_held_back():
    outlive_stop_signals(os.getppid())
    print("ready", flush=True)
    signal.pause()
"""


def entry_points() -> list[tuple[str, str]]:
    """The installed commands and their functions."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    return re.findall(r'^(resnext\S*) = "resnext_train\.__main__:(\w+)"$', text, re.MULTILINE)


def test_each_command_is_refused_on_windows_in_one_sentence() -> None:
    assert [name for name, _ in entry_points()] == ["resnext", "resnext-train", "resnext-eval"]
    for name, function in entry_points():
        command = [sys.executable, "-c", WINDOWS.format(function=function), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert done.stdout == ""
        assert re.fullmatch(rf"{name}: error: .*Windows.*WSL 2.*\n", done.stderr)


def test_on_macos_loader_processes_outlive_all_signals_but_sigterm() -> None:
    with subprocess.Popen([sys.executable, "-c", MACOS], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
                process.send_signal(number)
            assert process.wait(20) == -signal.SIGTERM
        finally:
            process.kill()


def test_where_the_stated_limit_of_files_is_refused_a_lower_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, which states none and refuses more than the kernel gives."""
    limits = [(256, resource.RLIM_INFINITY)]

    def set_limit(kind: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    allow_open_files()
    assert limits[1:] == [(10_240, resource.RLIM_INFINITY)]


def test_scipy_reads_without_a_limit_of_memory_where_none_can_be_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """macOS refuses one below the addresses that a process has already."""
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\n"
        "def refuse(kind, limits):\n"
        "    raise ValueError('current limit exceeds maximum limit')\n"
        "resource.setrlimit = refuse\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ValueError, match="mat file") as told:
        read_synsets(b"no file of MATLAB" * 9)
    assert "limit" not in str(told.value)


def test_cores_are_counted_without_an_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert usable_cores(tmp_path / "no quota") == 10
